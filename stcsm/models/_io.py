"""Gene models on disk and the hash that tells them apart; nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from torch import Tensor, nn

from stcsm import _keys
from stcsm._files import read_model, write_model
from stcsm.models._batches import GeneDataModule, gain_over_depth, most_counted
from stcsm.models._module import GeneVAEModule
from stcsm.models._setup import EARLIER, FULL, Setup, check_anndata, check_settings, read_setup
from stcsm.models._tissue import Frame, Sections, Tissue, find_on_frame, open_reader
from stcsm.nets import SpatialFilter
from stcsm.space import Pool

logger = logging.getLogger(__name__)

KEYS, COORDINATES, FEATURES = "places.keys", "places.coordinates", "places.features"
"""Names of the array positions, and of the features they are pooled to, among the saved tensors; files that exist call
positions places."""
MISFIT_GENES, HELD_OUT = 1000, 0.3
"""Genes, those of most counts, and share of their counts, that tell whether a section lies where the model's did."""
FAINT = 0.1
"""A section with fewer well-counted genes than this share of those trained on (or there) is warned of."""


def hash_weights(module: nn.Module, pool: Pool | None = None) -> str:
    """Short hash of everything in a module that an embedding depends on, and of how its features are pooled."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    # Cells are among the settings, and filters are made from the coordinates: they are not in the state.
    for name, tensor in module.named_buffers():
        if name == "grid.cells":
            digest.update(tensor.detach().cpu().numpy().tobytes())
    for _, layer in sorted(module.named_modules(), key=lambda named: named[0]):
        if isinstance(layer, SpatialFilter):
            entries = layer.matrix().tocoo()
            digest.update(np.stack([entries.row, entries.col]).astype(np.int64).tobytes() + entries.data.tobytes())
    if pool is not None:
        digest.update(pool.feature.astype(np.int64).tobytes())
    return digest.hexdigest()[:16]


def weights_state(module: nn.Module) -> tuple[Any, ...]:
    """Name, memory address, version, shape and weighted sum of every parameter and buffer.

    Fused optimisers, running statistics and edits of ``.data`` change values without torch's version counter; weighted
    sums, a small part of the cost of a hash, show those, exchanged values included.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    with torch.no_grad():
        return tuple(
            (
                name,
                tensor.data_ptr(),
                0 if tensor.is_inference() else tensor._version,
                tuple(tensor.shape),
                _weighted_sum(tensor),
            )
            for name, tensor in tensors.items()
        )


def _weighted_sum(tensor: Tensor, width: int = 1024) -> float:
    """Sum of values with weights that depend on where they stand, without a copy of the tensor."""
    flat = (tensor.cpu() if tensor.device.type == "mps" else tensor).reshape(-1)  # MPS has no float64
    flat = flat if flat.is_floating_point() else flat.to(torch.float64)
    rows = len(flat) // width
    body, rest = flat[: rows * width].view(rows, width), flat[rows * width :].double()
    columns = torch.linspace(1, 2, width, dtype=torch.float64, device=flat.device)
    sums = (body @ columns.to(flat.dtype)).double()
    weights = torch.linspace(1, 3, rows, dtype=torch.float64, device=flat.device)
    return float(sums @ weights + rest @ columns[: len(rest)])


def write_saved(
    folder: str | Path,
    kind: str,
    module: nn.Module,
    tissue: Tissue,
    settings: dict[str, Any],
    trained_genes: np.ndarray,
    training: dict[str, str] | None,
    is_trained: bool,
    overwrite: bool,
) -> None:
    """Write a model's folder: see ``GeneVAE.save``. ``kind`` names its class, ``training`` tells its training."""
    frame, sections = tissue.frame, tissue.sections
    write_model(
        folder,
        {
            **module.state_dict(),
            KEYS: torch.from_numpy(frame.keys),
            # Where positions are coordinates, both may be one array, and safetensors takes no tensor twice.
            COORDINATES: torch.from_numpy(frame.coordinates.copy()),
            **({} if tissue.pool is None else {FEATURES: torch.from_numpy(tissue.pool.feature)}),
        },
        {
            "class": kind,
            "settings": settings,
            "setup": asdict(tissue.setup),
            "is_trained": is_trained,
            "training": training,
            "spots": tissue.spot_names.tolist(),
            "model_spots": tissue.reader.spots.tolist(),
            "trained_genes": tissue.gene_names[trained_genes].tolist(),
            "places": frame.kind,
            "sections": None
            if sections is None
            else {
                "names": sections.names,
                "section": sections.section.tolist(),
                "place": sections.position.tolist(),
            },
        },
        overwrite,
    )


@dataclass(frozen=True)
class SavedModel:
    """What a model's folder holds.

    Attributes
    ----------
    folder
        The folder, for messages.
    kind
        Name of the model's class.
    weights
        State of the module.
    settings, setup, is_trained
        Those of the model.
    training
        What its weights were trained on and how, by hashes; None where that is not known.
    spot_names
        Names of the spots of its AnnData.
    spots
        Indices of the spots that it knows.
    trained_genes
        Names of the genes that it was trained on.
    frame, sections, pool
        Its array positions (None in files of versions that did not save them), sections, where it has several, and
        features, where positions are pooled.
    """

    folder: Path
    kind: str | None
    weights: dict[str, Tensor]
    settings: dict[str, Any]
    setup: Setup
    is_trained: bool
    training: dict[str, str] | None
    spot_names: list[str]
    spots: np.ndarray
    trained_genes: list[str]
    frame: Frame | None
    sections: Sections | None
    pool: Pool | None

    def on_its_spots(self, adata: AnnData) -> tuple[Tissue, np.ndarray]:
        """Return the model's tissue in an AnnData with the same spots, and the indices of the genes trained on.

        Raises
        ------
        ValueError
            If ``adata`` has other spots, unusable counts, or none of the genes.
        """
        _check_same_spots(adata, self.spot_names)
        check_anndata(adata, self.setup)
        genes = np.flatnonzero(adata.var_names.isin(self.trained_genes))
        if not len(genes):
            raise ValueError(
                f"Expected genes of the {len(self.trained_genes)} that the model was trained on (such as "
                f"{self.trained_genes[0]!r}), found none among {adata.n_vars} (such as {adata.var_names[0]!r}); "
                "symbols against Ensembl identifiers?"
            )
        return Tissue(adata, self.setup, self.spots, self.sections, self.frame, self.pool), genes

    def on_other_section(self, adata: AnnData) -> Tissue:
        """Return the tissue of an AnnData whose spots have array positions of the model.

        Raises
        ------
        ValueError
            If the model was saved without positions, or as :func:`find_on_frame` says.
        """
        if self.frame is None:
            raise ValueError(
                f"Expected a model that knows its array positions in {self.folder}, found one saved without them, by "
                "an earlier version; load it with its own AnnData and save it again"
            )
        known = "setup" in adata.uns.get(_keys.UNS, {})
        setup = read_setup(adata) if known else replace(self.setup, batch_key=None)
        check_anndata(adata, setup)
        seen = open_reader(adata, setup).spots
        spots, sections = find_on_frame(self.frame, adata, setup, seen)
        if len(spots) < len(seen):
            logger.warning(
                f"{len(seen) - len(spots)} of {len(seen)} spots have no array position of the model; they are left "
                "out, and maps are NaN there"
            )
        return Tissue(adata, setup, spots, sections, pool=self.pool)

    def load_into(self, module: nn.Module, own_depth: bool) -> None:
        """Load the saved weights into a module; with ``own_depth`` its depths stay those that it was built with.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        own = {n: t for n, t in module.named_buffers() if n in ("depth", "log_depth")} if own_depth else {}
        try:
            module.load_state_dict({**self.weights, **own})
        except RuntimeError as error:
            raise ValueError(
                f"Expected weights that fit the settings in {self.folder}, found others: {error}"
            ) from error
        module.eval()


def read_saved(folder: str | Path) -> SavedModel:
    """Read a model's folder.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If its files are damaged or incomplete.
    """
    tensors, saved = read_model(folder)
    try:
        settings = {"resolution": FULL, **saved["settings"]}
        check_settings(settings)
        if "depth" not in tensors:
            raise KeyError("depth")
        frame, sections = _saved_positions(tensors, saved)
        feature = tensors.pop(FEATURES).numpy() if FEATURES in tensors else None
        return SavedModel(
            folder=Path(folder),
            kind=saved.get("class"),
            weights=tensors,
            settings=settings,
            setup=Setup(**{**EARLIER, **saved["setup"]}),
            is_trained=bool(saved["is_trained"]),
            training=saved.get("training"),
            spot_names=saved["spots"],
            spots=np.asarray(saved["model_spots"], dtype=np.int64),
            trained_genes=saved["trained_genes"],
            frame=frame,
            sections=sections,
            pool=None if feature is None else Pool(feature, int(feature.max()) + 1),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"Expected a whole model in {folder}, found settings without {error}") from error


def _saved_positions(tensors: dict[str, Tensor], saved: dict[str, Any]) -> tuple[Frame | None, Sections | None]:
    """Array positions and sections of a saved model, taken out of its tensors; None where it has none."""
    if KEYS not in tensors:
        return None, None
    frame = Frame(saved["places"], tensors.pop(KEYS).numpy(), tensors.pop(COORDINATES).numpy())
    sections = saved.get("sections")
    if sections is None:
        return frame, None
    section, position = (np.asarray(sections[name], dtype=np.int64) for name in ("section", "place"))
    return frame, Sections(tuple(sections["names"]), frame, section, position)


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


def check_faint(tissue: Tissue, trained_samples: np.ndarray, min_counts: int, n_trained: int) -> None:
    """Refuse a section without a well-counted gene; warn of one that has few, for the genes that there are."""
    n_genes = tissue.reader.n_genes
    names = tissue.section_names or ("",)
    counted = np.bincount(trained_samples // n_genes, minlength=len(names))
    for name, n in zip(names, counted, strict=True):
        of = f"section {name!r}" if name else "this section"
        said = f"{n} of {n_genes} genes have {min_counts} counts or more in {of}"
        if n == 0:
            raise ValueError(f"Expected genes with {min_counts} counts or more to map by, found that {said}")
        if n < FAINT * min(n_trained, n_genes):
            logger.warning(f"{said}, where the model was trained on {n_trained}: maps rest on few counts")


def warn_of_misfit(module: GeneVAEModule, tissue: Tissue, trained_samples: np.ndarray, seed: int) -> None:
    """Warn if a model predicts a section's counts worse than depth alone: the section is not registered, then."""
    genes = most_counted(tissue.samples, trained_samples, MISFIT_GENES)
    gained = gain_over_depth(module, GeneDataModule(tissue.samples, genes, 128, seed, HELD_OUT))
    if gained < 0:
        logger.warning(
            f"the model predicts held-out counts of this AnnData worse than depth alone ({gained:.4f} nats a count): "
            "it does not seem to be registered with the model's section, and saliency maps cannot be trusted; register "
            "the two, or train a model of its own"
        )
