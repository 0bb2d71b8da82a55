"""Which features are genes, and which spots lie on tissue: one rule for what is read and for what is in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from stcsm import _keys
from stcsm._lazy import column

GENE_EXPRESSION = "gene expression"
"""10x's word, in lower case, for a feature that is a gene."""
SYMBOLS = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "feature_name")
"""Columns of ``.var`` that name the features where their index holds identifiers."""
_CONTROL = re.compile(
    r"blank([-_ ]?\d+|[-_ ]?codeword.*|[-_ ].*)?"  # MERSCOPE: Blank-1; Xenium: BLANK_0006, BlankCodeword_0001
    r"|neg(prb|probe|ative|control).*"  # CosMx: NegPrb3, NegProbe-WTX, Negative01; Xenium: NegControlProbe_00042
    r"|(antisense|intergenic)[-_ ].*"  # Xenium: antisense_BCL2L15, Intergenic_Region_1234
    r"|(deprecated|unassigned)([-_ ].*|codeword.*)?"  # Xenium: DeprecatedCodeword_0001; 10x probes: DEPRECATED_ENSG...
    r"|(systemcontrol|falsecode).*",  # CosMx
    re.IGNORECASE,
)


def control_features(names: Iterable[object], feature_types: Iterable[object] | None = None) -> np.ndarray:
    """Features that are not genes: blank and negative-control probes, antibodies, CRISPR guides.

    Parameters
    ----------
    names
        Names of the features.
    feature_types
        What 10x calls each of them (``adata.var["feature_types"]``). Any other word than "Gene Expression" is not a
        gene; where no feature is called so, or the word is missing, the name alone decides.

    Returns
    -------
    bool array (number of features,)
    """
    control = np.array([_CONTROL.fullmatch(str(name)) is not None for name in names], dtype=bool)
    if feature_types is None:
        return control
    kinds = [kind.strip().lower() if isinstance(kind, str) else "" for kind in feature_types]
    if GENE_EXPRESSION in kinds:
        control |= np.array([kind not in ("", GENE_EXPRESSION) for kind in kinds], dtype=bool)
    return control


def background_spots(in_tissue: Iterable[object]) -> np.ndarray:
    """Spots beside the tissue.

    Parameters
    ----------
    in_tissue
        ``adata.obs["in_tissue"]``: numbers, booleans or their text.

    Returns
    -------
    bool array (number of spots,)
        True where the value is 0 or False; a missing value does not say that a spot lies beside the tissue.
    """
    values = np.asarray(in_tissue)
    if values.dtype.kind in "biuf":
        return values == 0
    return np.array([str(value).strip().lower() in ("0", "0.0", "false") for value in values], dtype=bool)


def spots_taken(adata: Any, keep_background: bool | None = None) -> np.ndarray:
    """Spots (S,) of an AnnData that are taken: all but those beside the tissue, unless these are kept.

    None is what the AnnData was set up with (``setup_anndata``); without a setup, they are not kept.
    """
    if _kept(adata, "keep_background", keep_background) or _keys.IN_TISSUE not in adata.obs:
        return np.ones(adata.n_obs, dtype=bool)
    return ~background_spots(np.asarray(column(adata.obs, _keys.IN_TISSUE).astype(object)))


def features_taken(adata: Any, keep_controls: bool | None = None) -> np.ndarray:
    """Features (G,) of an AnnData that are taken: all but those that are no genes, unless these are kept.

    None is as for :func:`spots_taken`.
    """
    if _kept(adata, "keep_controls", keep_controls):
        return np.ones(adata.n_vars, dtype=bool)
    kinds = column(adata.var, _keys.FEATURE_TYPES) if _keys.FEATURE_TYPES in adata.var else None
    control = control_features(adata.var_names, kinds)
    for name in SYMBOLS:
        if name in adata.var:
            control |= control_features(column(adata.var, name))
    return ~control


def _kept(adata: Any, name: str, given: bool | None) -> bool:
    if given is not None:
        return given
    setup = adata.uns.get(_keys.UNS, {}).get("setup")
    # Setups of earlier versions do not say: they took everything.
    return False if setup is None else bool(setup.get(name, True))
