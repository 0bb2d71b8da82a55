"""The published model of gene images (Brocki & Chung 2019, arXiv 1910.13140), as its code computes it.

Everything in which it differs from :class:`GeneVAE`: cells of the grid, network and loss, optimizer, length of the
training, and weights of the original Keras model. ``GeneVAE.published`` composes them.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData
from scvi.module.base import LossOutput
from torch import Tensor, nn

from stcsm import _keys
from stcsm._lazy import columns
from stcsm.models._module import GeneMember, GeneVAEModule
from stcsm.models._tissue import Tissue
from stcsm.models._training import OneCyclePlan, Schedule
from stcsm.nets import (
    HIDDEN,
    SIZE,
    PublishedDecoder,
    PublishedEncoder,
    SpotGrid,
    copy_all,
    from_keras,
    keras_initialise,
    keras_targets,
    load_keras_layers,
    read_keras_layers,
)

logger = logging.getLogger(__name__)

N_LATENT = 20
KL_WEIGHT = 0.5e-4
SETTINGS: dict[str, Any] = {
    "encoder": "conv",
    "likelihood": "bernoulli",
    "n_latent": N_LATENT,
    "n_seeds": 1,
    "min_counts": 1,
    "smoothing": 0.0,
    "n_hidden": HIDDEN,
}
"""Settings of a :class:`GeneVAE` that the published model stands for; the seed is the user's."""


_BASES: tuple[tuple[Any, str], ...] = (
    (nn.BatchNorm1d | nn.BatchNorm2d, "batch_normalization"),
    (nn.ConvTranspose2d, "conv2d_transpose"),
    (nn.Conv2d, "conv2d"),
    (nn.Linear, "dense"),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_FIX = "give the weights of the published model of gene images"


class PublishedModule(GeneVAEModule):
    """Gene images over all 1024 cells in, the published loss out."""

    grid: SpotGrid

    def __init__(self, depth: Tensor, seeds: Sequence[int], grid: SpotGrid):
        super().__init__(depth, "bernoulli", N_LATENT, seeds, _published_member, grid)

    def draw(self, member: int, mean: Tensor, log_var: Tensor) -> Tensor:
        """One draw (N, L), with standard deviation exp(log-variance) as published, not exp(log-variance / 2)."""
        return mean + log_var.exp() * self._noise(member, mean)

    def variance(self, log_var: Tensor) -> Tensor:
        """Variance of the published draw, exp(log-variance) squared."""
        return (2 * log_var).exp()

    def at_spots(self, f: Tensor) -> Tensor:
        """Decoded images (N, 1, 32, 32) at the spots, (N, S)."""
        return self.to_spots(f)

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, list[Tensor]],
        generative_outputs: dict[str, list[Tensor]],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Mean cross-entropy over all cells - 0.5e-4 * mean over latents of (1 + log_var - mean^2 - exp(log_var)).

        ``kl_weight`` is not used: the published divergence has its weight from the first step on.
        """
        counts = tensors.get("target", tensors["counts"])
        images = self.transform(counts, counts)
        loss = images.new_zeros(())
        reconstruction, divergence = images.new_zeros(len(images)), images.new_zeros(len(images))
        for m, logits in enumerate(generative_outputs["f"]):
            mean, log_var = inference_outputs["mean"][m], inference_outputs["log_var"][m]
            cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
            rec_m = cross_entropy.flatten(1).mean(dim=1)
            div_m = -KL_WEIGHT * (1 + log_var - mean.square() - log_var.exp()).mean(dim=1)
            loss = loss + (rec_m + div_m).mean()
            reconstruction = reconstruction + rec_m.detach() / len(self.members)
            divergence = divergence + div_m.detach() / len(self.members)
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=divergence)


def _published_member() -> GeneMember:
    member = GeneMember(PublishedEncoder(N_LATENT), PublishedDecoder(N_LATENT), 0)
    keras_initialise(member, torch.default_generator)
    return member.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def published_module(
    settings: dict[str, Any], depth: Tensor, coordinates: np.ndarray, grid: SpotGrid | None
) -> PublishedModule:
    """Return the published network with Keras's initial weights; it has no filter, so ``coordinates`` are not used."""
    assert grid is not None
    return PublishedModule(depth, [settings["seed"] + m for m in range(settings["n_seeds"])], grid)


class PublishedPlan(OneCyclePlan):
    """Adam at a constant rate with Keras's epsilon."""

    FIXED: ClassVar[dict[str, str]] = {
        **OneCyclePlan.FIXED,
        "weight_decay": "the published optimizer has none",
        "kl_warmup": "the published divergence has its weight from the first step on",
    }

    def configure_optimizers(self) -> dict[str, Any]:
        """Return the optimizer, without a schedule."""
        params = [p for p in self.module.parameters() if p.requires_grad]
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        return {"optimizer": torch.optim.Adam(params, lr=self.lr, eps=1e-7, fused=fused)}


def published_schedule(
    encoder: str, n_samples: int, n_spots: int, max_epochs: int | None, lr: float | None, batch_size: int | None
) -> Schedule:
    """Return the published schedule: 10 passes over the genes in batches of 64, at a rate of 5e-4."""
    return Schedule(
        max_epochs=10 if max_epochs is None else max_epochs,
        batch_size=64 if batch_size is None else batch_size,
        lr=5e-4 if lr is None else lr,
        kl_warmup=None,
        small=False,
    )


def published_grid(adata: AnnData, tissue: Tissue) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the published cells of a tissue's spots, and the grid's shape.

    Raises
    ------
    ValueError
        If there are several sections, or as :func:`published_cells` says.
    """
    if tissue.sections is not None:
        raise ValueError(
            f"Expected one section for the published model, found {len(tissue.section_names)}; take one of them, or "
            'GeneVAE(adata, encoder="conv", likelihood="bernoulli"), which takes several'
        )
    return published_cells(adata, tissue.reader.spots), (SIZE, SIZE)


def published_cells(adata: AnnData, spots: np.ndarray) -> np.ndarray:
    """Cell ``y * 32 + x`` of each spot, x = int(x + 0.5) - 1 and y = int(y + 0.5) of its array coordinates.

    Where spots lie beyond the 32 x 32 cells and fit when shifted, all are shifted.

    Parameters
    ----------
    adata
        Has ``obsm["spatial_array"]``, or ``obs["array_col"]`` and ``obs["array_row"]``.
    spots
        Indices (S',) of the spots that the model knows.

    Raises
    ------
    ValueError
        If there are no array coordinates, they are not finite, or the spots do not fit 32 x 32 cells.
    """
    if _keys.SPATIAL_ARRAY in adata.obsm:
        positions = np.asarray(adata.obsm[_keys.SPATIAL_ARRAY], dtype=np.float64)
    elif {_keys.ARRAY_COL, _keys.ARRAY_ROW} <= set(adata.obs):
        positions = columns(adata.obs, [_keys.ARRAY_COL, _keys.ARRAY_ROW]).astype(np.float64)
    else:
        raise ValueError(
            "Expected array coordinates in adata.obsm['spatial_array'] or in obs['array_col'] and obs['array_row'], "
            "found neither; read ST files with stcsm.io.read_st, or run stcsm.pp.to_grid(adata) first"
        )
    positions = positions[spots]
    if positions.ndim != 2 or positions.shape[1] != 2 or not np.isfinite(positions).all():
        raise ValueError("Expected two finite array coordinates for every spot, found others; drop those spots")
    # int() cuts off towards zero.
    cells = np.trunc(positions + 0.5).astype(np.int64) - [1, 0]
    low, extent = cells.min(axis=0), np.ptp(cells, axis=0) + 1
    if (extent > SIZE).any():
        raise ValueError(
            f"Expected spots that fit the {SIZE} x {SIZE} cells of the published model, found {extent[0]} columns and "
            f'{extent[1]} rows; take GeneVAE(adata, encoder="conv"), whose grid is as large as the tissue'
        )
    shift = np.where((low < 0) | (cells.max(axis=0) >= SIZE), (SIZE - extent) // 2 - low, 0)
    if shift.any():
        logger.warning(f"spots lie beyond the published grid; all are shifted by {shift[0]} columns, {shift[1]} rows")
    x, y = (cells + shift).T
    flat = y * SIZE + x
    shared = len(flat) - len(np.unique(flat))
    if shared:
        logger.warning(f"{shared} of {len(flat)} spots share a cell with others; their counts are added up there")
    return flat


def read_published_weights(path: str | Path, encoder: nn.Module, decoder: nn.Module) -> None:
    """Copy the arrays of an archive or a Keras file into encoder and decoder, all or none.

    Raises
    ------
    FileNotFoundError, ValueError
        As :meth:`stcsm.models.PublishedVAE.load_published_weights` says.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected the original model's weights (.npz, or HDF5 of Keras) at {path}, found no such file"
        )
    with path.open("rb") as file:
        hdf5 = file.read(len(_HDF5)) == _HDF5
    if hdf5:
        network = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
        load_keras_layers(read_keras_layers(path), network, path, _FIX)
    else:
        _read_archive(path, encoder, decoder)


def _read_archive(path: Path, encoder: nn.Module, decoder: nn.Module) -> None:
    """Keras numbers the network layers of a kind in the order of their creation, over encoder and decoder together."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError, EOFError, zlib.error) as error:
        raise ValueError(
            f"Expected an archive of arrays (.npz) or an HDF5 file of Keras at {path}, found another file: {error}"
        ) from error
    numbers: dict[str, int] = {}
    found: list[tuple[Tensor, Tensor]] = []
    for half, module in (("enc", encoder), ("dec", decoder)):
        for where, layer in module.named_modules():
            base = next((name for kind, name in _BASES if isinstance(layer, kind)), None)
            if base is None:
                continue
            number = numbers.get(base, 0)
            numbers[base] = number + 1
            name = f"{half}__{base}_{number}" if number else f"{half}__{base}"
            for role, target in keras_targets(layer).items():
                key = f"{name}__{role}"
                if key not in held:
                    raise ValueError(
                        f"Expected the array {key} in {path}, found none; there are {sorted(held)[:3]}, ..."
                    )
                found.append((target, from_keras(held[key], role, target, key, where, path, _FIX)))
    copy_all(found)
