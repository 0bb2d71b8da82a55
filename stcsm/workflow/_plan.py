"""How long a run will take and how much memory, told before it: from timed batches of its training and measured rates.

The other stages are told from rates: how many gene-place-members of a training batch a stage is worth, as
``benchmarks/scale.py`` measured whole runs. What a gene-place-member takes is timed here and now, so the plan is that
of this machine, as busy as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from stcsm.io import stays_in_file
from stcsm.models import GeneVAE, TrainingCost, training_cost
from stcsm.space import NEIGHBOURS, require_memory, resident_memory

RATES = "rates.json"
TERMS = ("one run", "places", "genes x places x members", "concepts x places")
"""What the seconds of a stage, and memory, grow with."""

MAPS = 5
"""Maps of a concept that a run holds at its end: saliency, p, q, decoded and concept map."""


@dataclass(frozen=True)
class Size:
    """What the time of a run depends on: places, genes trained on (each section's), members and concepts."""

    places: int
    genes: int
    members: int
    concepts: int

    def terms(self) -> np.ndarray:
        """Values of ``TERMS``."""
        values = self.genes * self.places * self.members
        return np.array([1.0, self.places, values, self.concepts * self.places])


@dataclass(frozen=True)
class Plan:
    """What a run will take.

    Attributes
    ----------
    size
        Size of the run.
    seconds
        Seconds of each stage to come.
    memory, before
        Most memory of the process, and what it had when the plan was made (bytes).
    cost
        What a batch of the training took.
    """

    size: Size
    seconds: dict[str, float]
    memory: float
    before: float
    cost: TrainingCost

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    def record(self) -> dict[str, Any]:
        """What the plan rests on, for the record of a run."""
        return {
            "size": asdict(self.size),
            "batch": {"seconds": self.cost.step_seconds, "values": self.cost.batch_values, "steps": self.cost.steps},
            "memory": {"before": self.before, "training": self.cost.memory, "planned": round(self.memory)},
        }


def make_plan(model: GeneVAE, n_concepts: int, skipped: tuple[str, ...] = (), cost: TrainingCost | None = None) -> Plan:
    """Plan what is left of a run once its counts are read.

    Parameters
    ----------
    model
        Model that is to be trained.
    n_concepts
        Concepts that are mapped.
    skipped
        Stages that are left out.
    cost
        What a batch of the training took, where that is known; by default some are timed.

    Raises
    ------
    MemoryError
        If batches are to be timed and do not fit.
    """
    size = size_of(model, n_concepts)
    before = resident_memory()
    cost = cost or training_cost(model)
    rates = read_rates()
    unit = cost.step_seconds / (cost.batch_values * size.members)
    seconds = {stage: unit * float(size.terms() @ terms) for stage, terms in rates["stages"].items()}
    seconds["train"] = cost.steps * cost.step_seconds
    memory = before + cost.memory + float(size.terms() @ rates["memory"])
    return Plan(size, {s: t for s, t in seconds.items() if s not in skipped}, memory, before, cost)


def recorded_cost(run: Path) -> TrainingCost | None:
    """What a batch of a training that is done took, by the record of its run; None where there is none.

    Its memory is none: nothing is trained.
    """
    if not run.exists():
        return None
    batch = json.loads(run.read_text(encoding="utf-8")).get("batch")
    return batch and TrainingCost(batch["steps"], batch["seconds"], batch["values"], 0.0)


def require_reading_memory(paths: Sequence[Path]) -> None:
    """Refuse files of AnnData (``.h5ad``) that cannot be read into memory.

    Other files hold what is never read whole, such as the empty places of a ``.gef``; and counts that stay in their
    file (:func:`stcsm.io.stays_in_file`) take no memory.

    Raises
    ------
    MemoryError
        With the arithmetic.
    """
    arrays = counts = 0
    for path in paths:
        if path.is_file() and h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                if {"obs", "var"} <= set(file):
                    backed = len(paths) == 1 and stays_in_file(file)
                    counts += 0 if backed else _array_bytes(file, "X")
                    arrays += _array_bytes(file) - (_array_bytes(file, "X") + _array_bytes(file, "raw/X")) * backed
    require_memory(
        float(arrays + counts),
        f"{arrays / 2**30:.1f} GiB of arrays in {', '.join(map(str, paths))}, and {counts / 2**30:.1f} GiB of counts "
        "once more, by gene",
        'in Python the counts may stay in the file: anndata.read_h5ad(path, backed="r")'
        if counts
        else "the counts stay in the file, so give one without the layers and matrices that are not needed",
    )


def _array_bytes(file: h5py.File, name: str = "/") -> int:
    """Bytes of all arrays below a name, once they are read; 0 where there are none."""
    found = [file[name]] if name in file else []
    if found and isinstance(found[0], h5py.Group):
        found[0].visititems(lambda _, item: found.append(item))
    return sum(item.size * item.dtype.itemsize for item in found if isinstance(item, h5py.Dataset))


def require_map_memory(model: GeneVAE, n_concepts: int) -> None:
    """Refuse maps that cannot fit beside the counts; the training has a check of its own.

    Raises
    ------
    MemoryError
        With the arithmetic.
    """
    spots, neighbours = len(model.spot_names), max(NEIGHBOURS)
    require_memory(
        spots * (n_concepts * MAPS * 8.0 + neighbours * 12.0),
        f"{MAPS} maps of {n_concepts} concepts at {spots} spots, 8 bytes each, and {neighbours} neighbours of each "
        "spot, 12 bytes each",
        "map fewer concepts at a time",
    )


def size_of(model: GeneVAE, n_concepts: int) -> Size:
    """Size of a run; what is not trained grows with places, however these are pooled."""
    places = model.describe().get("n_positions", len(model.spots))
    return Size(places, len(model.trained_samples), model.n_members, n_concepts)


def read_rates() -> dict[str, Any]:
    """Rates of the stages, for each of ``TERMS``: gene-place-members that one is worth; and bytes of memory."""
    return json.loads((files(__package__) / RATES).read_text(encoding="utf-8"))
