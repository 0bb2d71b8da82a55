"""What the decoder draws for a concept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from scipy import sparse
from scipy.special import expit

from stcsm import _keys
from stcsm.concepts import concept_vectors
from stcsm.models import GeneVAE
from stcsm.tl._concepts import check_concepts
from stcsm.tl._ensemble import average_members
from stcsm.tl._store import Concept, columns, member_rows, read_concepts


def decoded(
    adata: AnnData, model: GeneVAE, concepts: Sequence[str] | str | None = None, *, contrast: bool = True
) -> None:
    """Decode concepts: where a gene would be found that lies where the concept points.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    model
        The model that the concepts were made with.
    concepts
        Names; None is all of them.
    contrast
        Against the mean gene. False: the decoder at the concept itself, as the paper shows it; only for concepts of
        ``estimator="mean"``, which are places and not directions.

    Writes
    ------
    ``adata.obsm["concept_decoded"]``
        DataFrame (S, K): f(mean gene + concept) - f(mean gene), in log units, mean zero over spots; NaN at spots
        without a count. The step along the concept's direction is the one that its members take from the mean gene.
        With several members of the ensemble each map is standardised and then averaged. Without ``contrast``
        f(concept), or the max-scaled expression itself, between 0 and 1, where the likelihood is Bernoulli.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name is unknown, or a concept that is a direction is
        to be decoded by itself.
    """
    check_concepts(adata, model)
    chosen = read_concepts(adata, concepts)
    maps = decoded_maps(model, chosen) if contrast else _at_concepts(model, chosen)
    adata.obsm[_keys.CONCEPT_DECODED] = columns(chosen, model.to_all_spots(maps, counted=True).T, adata.obs_names)


def decoded_maps(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Decoded maps (K, S') of concepts, averaged over the members of the ensemble."""
    by_member = []
    for m in range(model.n_members):
        latent = model.get_latent_representation(member=m)
        centre = np.nanmean(latent, axis=0)
        points = np.concatenate([centre[None], centre + _steps(model, concepts, latent, m)])
        f = model.decode(points, m)[:, model.spots].astype(np.float64)
        f -= f.mean(axis=1, keepdims=True)
        by_member.append((f[1:] - f[0]).T)
    return average_members(by_member).T


def _at_concepts(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """The decoder's output (K, S') at the concepts."""
    for c in concepts:
        if c.estimator != "mean":
            raise ValueError(
                f"Expected concepts of estimator='mean' to decode them by themselves, found {c.key!r} of "
                f"estimator={c.estimator!r}, which is a direction; pass contrast=True"
            )
    by_member = []
    for m in range(model.n_members):
        f = model.decode(np.stack([c.vectors[m] for c in concepts]), m)[:, model.spots].astype(np.float64)
        by_member.append((expit(f) if model.settings["likelihood"] == "bernoulli" else f).T)
    return average_members(by_member).T


def _steps(model: GeneVAE, concepts: list[Concept], latent: np.ndarray, member: int) -> np.ndarray:
    """From the mean gene to where each concept lies, (K, L).

    Plain means point at the members themselves; other vectors are directions, along which the members' distance from
    the mean gene says how far to go. The encoded profile of a layer has no members: it is where it is.
    """
    steps = np.stack([c.vectors[member] for c in concepts])
    with_genes = [k for k, c in enumerate(concepts) if len(c.members)]
    if not with_genes:
        return steps
    found = [member_rows(concepts[k], model.gene_names) for k in with_genes]
    ends = np.cumsum([0, *(len(rows) for rows, _ in found)])
    weights = sparse.csr_array(
        (np.concatenate([w for _, w in found]), np.concatenate([rows for rows, _ in found]), ends),
        shape=(len(found), len(latent)),
    )
    towards = concept_vectors(latent, weights, "contrast")
    for k, there in zip(with_genes, towards, strict=True):
        v = steps[k]
        steps[k] = there if concepts[k].estimator == "mean" else v * abs(there @ v) / (v @ v)
    return steps
