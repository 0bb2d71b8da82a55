"""``save`` and ``load`` of a gene model, and the hash that tells models apart."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from torch import Tensor

from stcsm import _keys
from stcsm._files import read_model, write_model
from stcsm.models._data import GeneDataModule
from stcsm.models._gain import gain_over_depth, most_counted
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader
from stcsm.models._sections import Frame, Sections, find_on_frame
from stcsm.models._settings import check_settings
from stcsm.models._setup import Setup, check_anndata, counts_matrix, read_setup

logger = logging.getLogger(__name__)

KEYS, COORDINATES = "places.keys", "places.coordinates"
"""Names of the places among the saved tensors."""
MISFIT_GENES, HELD_OUT = 1000, 0.3
"""Genes, those of most counts, and share of their counts, that tell whether a section lies where the model's did."""
FAINT = 0.1
"""A section with fewer well-counted genes than this share of those trained on (or there) is warned of."""


class SavingMixin:
    """``save``, ``load`` and ``fingerprint``; scvi-tools' own loader unpickles, this one does not."""

    module: GeneVAEModule
    settings: dict[str, Any]
    setup: Setup
    spots: Any
    sections: Sections | None
    frame: Frame
    trained_genes: np.ndarray
    trained_samples: np.ndarray
    samples: GeneReader
    reader: GeneReader
    section_names: tuple[str, ...]
    is_trained_: bool
    _model_summary_string: str
    _hashed: tuple[Any, str] | None = None

    if TYPE_CHECKING:  # what the model brings

        @property
        def spot_names(self) -> pd.Index: ...

        @property
        def gene_names(self) -> pd.Index: ...

        def _attach(
            self,
            adata: AnnData,
            setup: Setup,
            settings: dict[str, Any],
            spots: np.ndarray | None = None,
            sections: Sections | None = None,
            frame: Frame | None = None,
        ) -> None: ...

        def _choose_samples(self) -> None: ...

        def _build_module(self, depth: Tensor) -> GeneVAEModule: ...

        def _summary(self) -> str: ...

        @classmethod
        def _class_named(cls, name: Any) -> type[Self]: ...

    def fingerprint(self) -> str:
        """Short hash of the weights: two models with the same fingerprint give the same embedding.

        Computed once per state of the weights, and again after training, loading or any change of them in place.
        """
        state = _weights_state(self.module)
        if self._hashed is None or self._hashed[0] != state:
            self._hashed = state, hash_weights(self.module)
        return self._hashed[1]

    def save(self, dir_path: str | Path, overwrite: bool = False) -> None:
        """Write weights (safetensors) and settings (JSON) into a folder, whole or not at all.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds anything but a model.
        """
        frame, held = self.frame, self.sections
        write_model(
            dir_path,
            {
                **self.module.state_dict(),
                KEYS: torch.from_numpy(frame.keys),
                # Where places are coordinates, both may be one array, and safetensors takes no tensor twice.
                COORDINATES: torch.from_numpy(frame.coordinates.copy()),
            },
            {
                "class": type(self).__name__,
                "settings": self.settings,
                "setup": asdict(self.setup),
                "is_trained": self.is_trained_,
                "spots": self.spot_names.tolist(),
                "model_spots": self.spots.tolist(),
                "trained_genes": self.gene_names[self.trained_genes].tolist(),
                "places": frame.kind,
                "sections": None
                if held is None
                else {"names": held.names, "section": held.section.tolist(), "place": held.place.tolist()},
            },
            overwrite,
        )

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData, accelerator: str = "auto", *, match: str = "spots") -> Self:
        """Read a model that :meth:`save` wrote; no code is unpickled.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            The AnnData it was trained on, or another with the same spots in the same order; with ``match="positions"``
            another section.
        accelerator
            ``"auto"`` takes a GPU where there is one.
        match
            ``"spots"``: the spots have to be the model's. ``"positions"``: apply the model to another section (or
            several, where ``adata`` was set up with a batch key) on the same grid. Spots are brought to the model's
            places by row and column (or by equal coordinates, where the model was trained without them). Places
            that the section lacks are zero in the input; spots on no place of the model are left out, and maps are NaN
            there. Genes may be others: a gene is a sample, not a feature.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If its files are damaged, if ``adata`` has other spots, or, with ``match="positions"``, if fewer than half
            of the places are in common, or a section has no gene with ``min_counts`` counts.
        """
        if match not in ("spots", "positions"):
            raise ValueError(f"Expected match to be 'spots' or 'positions', found {match!r}")
        tensors, saved = read_model(dir_path)
        try:
            setup, spots = Setup(**saved["setup"]), np.asarray(saved["model_spots"], dtype=np.int64)
            names, trained, settings = saved["spots"], saved["trained_genes"], dict(saved["settings"])
            check_settings(settings)
            depth, is_trained = tensors["depth"], bool(saved["is_trained"])
            frame, sections = _saved_places(tensors, saved)
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected a whole model in {dir_path}, found settings without {error}") from error
        cls = cls._class_named(saved.get("class"))
        model = cls.__new__(cls)
        if match == "positions":
            setup, spots, sections = cls._other_section(dir_path, frame, adata, setup)
            model._attach(adata, setup, settings, spots, sections)
            model._choose_samples()
            model._check_faint(len(trained))
            depth = torch.from_numpy(model.samples.depth.astype(np.float32))
        else:
            _check_same_spots(adata, names)
            check_anndata(adata, setup)
            genes = np.flatnonzero(adata.var_names.isin(trained))
            if not len(genes):
                raise ValueError(
                    f"Expected genes of the {len(trained)} that the model was trained on (such as {trained[0]!r}), "
                    f"found none among {adata.n_vars} (such as {adata.var_names[0]!r}); symbols against Ensembl "
                    "identifiers?"
                )
            model._attach(adata, setup, settings, spots, sections, frame)
            model._choose_samples()
            known = np.isin(model.trained_samples % model.reader.n_genes, genes)
            model.trained_samples = model.trained_samples[known] if sections is not None else genes
            model.trained_genes = genes
        model.module = model._build_module(depth)
        own = {} if match == "spots" else {n: t for n, t in model.module.named_buffers() if n in ("depth", "log_depth")}
        try:
            model.module.load_state_dict({**tensors, **own})
        except RuntimeError as error:
            raise ValueError(f"Expected weights that fit the settings in {dir_path}, found others: {error}") from error
        model.module.eval()
        model.is_trained_ = is_trained
        model._model_summary_string = model._summary()
        if match == "positions" and is_trained and settings["likelihood"] != "bernoulli":  # which shares nothing out
            model._warn_of_misfit()
        if accelerator != "cpu" and torch.cuda.is_available():
            model.module.to("cuda:0")
        return model

    def _check_faint(self, n_trained: int) -> None:
        """Refuse a section without a well-counted gene, warn of one that has few for the genes that there are."""
        least, n_genes = self.settings["min_counts"], self.reader.n_genes
        names = self.section_names or ("",)
        counted = np.bincount(self.trained_samples // n_genes, minlength=len(names))
        for name, n in zip(names, counted, strict=True):
            of = f"section {name!r}" if name else "this section"
            said = f"{n} of {n_genes} genes have {least} counts or more in {of}"
            if n == 0:
                raise ValueError(f"Expected genes with {least} counts or more to map by, found that {said}")
            if n < FAINT * min(n_trained, n_genes):
                logger.warning(f"{said}, where the model was trained on {n_trained}: maps rest on few counts")

    def _warn_of_misfit(self) -> None:
        """Say so if the model predicts this section's counts worse than depth alone would: it lies elsewhere, then."""
        genes = most_counted(self.samples, self.trained_samples, MISFIT_GENES)
        data = GeneDataModule(self.samples, genes, 128, int(self.settings["seed"]), HELD_OUT)
        gained = gain_over_depth(self.module, data)
        if gained < 0:
            logger.warning(
                f"the model predicts held-out counts of this AnnData worse than depth alone ({gained:.4f} nats a "
                "count): it does not seem to lie on the model's section, and saliency maps cannot be trusted; register "
                "the two, or train a model of its own"
            )

    @classmethod
    def _other_section(
        cls, dir_path: str | Path, frame: Frame | None, adata: AnnData, setup: Setup
    ) -> tuple[Setup, np.ndarray, Sections]:
        """Setup, spots and sections of an AnnData that a model is applied to."""
        if frame is None:
            raise ValueError(
                f"Expected a model that knows its places in {dir_path}, found one saved without them, by an earlier "
                "version; load it with its own AnnData and save it again"
            )
        setup = read_setup(adata) if "setup" in adata.uns.get(_keys.UNS, {}) else replace(setup, batch_key=None)
        check_anndata(adata, setup)
        seen = GeneReader(counts_matrix(adata, setup.layer)).spots
        spots, sections = find_on_frame(frame, adata, setup, seen)
        if len(spots) < len(seen):
            logger.warning(
                f"{len(seen) - len(spots)} of {len(seen)} spots lie on no place of the model; they are left out, and "
                "maps are NaN there"
            )
        return setup, spots, sections


def hash_weights(module: GeneVAEModule) -> str:
    """Hash of everything in a module that an embedding depends on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    # Filters are made from the coordinates, and cells stand with the settings: they are no part of the state.
    for name, tensor in sorted(module.named_buffers()):
        if "_filter" in name or name == "grid.cells":
            digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _weights_state(module: GeneVAEModule) -> tuple[Any, ...]:
    """Name, memory address, version, shape and sum of every parameter and buffer: another one after any change.

    Fused optimisers, running statistics and edits of ``.data`` change values and leave torch's version counter as it
    was; the sums, a small part of the cost of a hash, tell those.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        sums = [float(tensor.sum()) for tensor in tensors.values()]
    return tuple(
        (name, tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version, tuple(tensor.shape), total)
        for (name, tensor), total in zip(tensors.items(), sums, strict=True)
    )


def _saved_places(tensors: dict[str, torch.Tensor], saved: dict[str, Any]) -> tuple[Frame | None, Sections | None]:
    """Places and sections of a saved model, taken out of its tensors; None where it has none."""
    if KEYS not in tensors:
        return None, None
    frame = Frame(saved["places"], tensors.pop(KEYS).numpy(), tensors.pop(COORDINATES).numpy())
    held = saved.get("sections")
    if held is None:
        return frame, None
    section, place = (np.asarray(held[name], dtype=np.int64) for name in ("section", "place"))
    return frame, Sections(tuple(held["names"]), frame, section, place)


def _check_same_spots(adata: AnnData, spots: list[str]) -> None:
    names = adata.obs_names
    if list(names) == spots:
        return
    common = len(names.intersection(spots))
    if common == len(spots) == len(names):
        raise ValueError(
            "Expected the spots in the order that the model was trained with, found another order; "
            "reorder them: adata = adata[model_spots].copy()"
        )
    raise ValueError(
        f"Expected the {len(spots)} spots that the model was trained on, found {len(names)} spots of which {common} "
        'are the same; for another section on the same grid: GeneVAE.load(folder, adata, match="positions")'
    )
