"""``save`` and ``load`` of a gene model, and the hash that tells models apart."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor

from stcsm._model_files import read_model, write_model
from stcsm.models._module import GeneVAEModule
from stcsm.models._settings import check_settings
from stcsm.models._setup import Setup, check_anndata


class SavingMixin:
    """``save``, ``load`` and ``fingerprint``; scvi-tools' own loader unpickles, this one does not."""

    module: GeneVAEModule
    settings: dict[str, Any]
    setup: Setup
    spots: Any
    trained_genes: np.ndarray
    is_trained_: bool
    _model_summary_string: str
    adata: Any

    if TYPE_CHECKING:  # what the model brings

        def _attach(
            self, adata: AnnData, setup: Setup, settings: dict[str, Any], spots: np.ndarray | None = None
        ) -> None: ...

        def _build_module(self, depth: Tensor) -> GeneVAEModule: ...

        def _summary(self) -> str: ...

        @classmethod
        def _class_named(cls, name: Any) -> type[Self]: ...

    def fingerprint(self) -> str:
        """Short hash of the weights: two models with the same fingerprint give the same embedding."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        # Filters are made from the coordinates, and cells stand with the settings: they are no part of the state.
        for name, tensor in sorted(self.module.named_buffers()):
            if "_filter" in name or name == "grid.cells":
                digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, dir_path: str | Path, overwrite: bool = False) -> None:
        """Write weights (safetensors) and settings (JSON) into a folder, whole or not at all.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds anything but a model.
        """
        write_model(
            dir_path,
            self.module.state_dict(),
            {
                "class": type(self).__name__,
                "settings": self.settings,
                "setup": {"layer": self.setup.layer, "spatial_key": self.setup.spatial_key},
                "is_trained": self.is_trained_,
                "spots": self.adata.obs_names.tolist(),
                "model_spots": self.spots.tolist(),
                "trained_genes": self.adata.var_names[self.trained_genes].tolist(),
            },
            overwrite,
        )

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData, accelerator: str = "auto") -> Self:
        """Read a model that :meth:`save` wrote; no code is unpickled.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            The AnnData it was trained on, or another with the same spots in the same order.
        accelerator
            ``"auto"`` takes a GPU where there is one.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If its files are damaged, or if ``adata`` has other spots.
        """
        tensors, saved = read_model(dir_path)
        try:
            setup, spots = Setup(**saved["setup"]), np.asarray(saved["model_spots"], dtype=np.int64)
            names, trained, settings = saved["spots"], saved["trained_genes"], dict(saved["settings"])
            check_settings(settings)
            depth, is_trained = tensors["depth"], bool(saved["is_trained"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"Expected a whole model in {dir_path}, found settings without {error}") from error
        _check_same_spots(adata, names)
        check_anndata(adata, setup)
        genes = np.flatnonzero(adata.var_names.isin(trained))
        if not len(genes):
            raise ValueError(
                f"Expected genes of the {len(trained)} that the model was trained on (such as {trained[0]!r}), found "
                f"none among {adata.n_vars} (such as {adata.var_names[0]!r}); symbols against Ensembl identifiers?"
            )
        cls = cls._class_named(saved.get("class"))
        model = cls.__new__(cls)
        model._attach(adata, setup, settings, spots)
        model.trained_genes = genes
        model.module = model._build_module(depth)
        try:
            model.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"Expected weights that fit the settings in {dir_path}, found others: {error}") from error
        model.module.eval()
        model.is_trained_ = is_trained
        model._model_summary_string = model._summary()
        if accelerator != "cpu" and torch.cuda.is_available():
            model.module.to("cuda:0")
        return model


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
        "are the same; a model is tied to its spots: train another for this section"
    )
