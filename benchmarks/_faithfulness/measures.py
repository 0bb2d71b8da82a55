"""How one method does on one task."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks._faithfulness.tasks import Task
from stcsm.attribution import attribute, mean_attribution, method_class
from stcsm.evaluation import (
    completeness,
    cross_concept,
    infidelity,
    layers_from_top,
    multiplies_by_input,
    paired_similarity,
    perturbation_curves,
    randomised,
    sensitivity_max,
)

AREAS = ("area_zero", "area_mean", "area_shared")
ALIKE = 0.5
"""Correlation from which a method counts as drawing the same map for another concept or a random top layer."""


def measure(task: Task, method: str, seed: int) -> dict[str, Any]:
    """All numbers of one method.

    ``area_zero``: area between LIF and MIF, share of the score, each sample in the order of its own map, replaced by
    zero; ``area_mean``: replaced by the mean sample, the methods' own baseline (where they have one) likewise;
    ``area_shared``: every sample in the order of the mean map, which is what ``tl.saliency`` shows.
    """
    encoder, x, v, params = task.encoder, task.inputs, task.concepts, task.params.get(method, {})
    mean_sample = task.averaged.mean(dim=0)
    based = "baseline" in method_class(method).parameters()
    started = time.process_time()
    maps = attribute(encoder, x, v, method, **params).numpy()
    seconds = time.process_time() - started
    to_mean = attribute(encoder, x, v, method, baseline=mean_sample, **params).numpy() if based else maps
    settings: dict[str, Any] = {"features": task.features, "seed": seed}
    areas = [
        perturbation_curves(encoder, x, v, maps, **settings).relative,
        perturbation_curves(encoder, x, v, to_mean, baseline=mean_sample, **settings).relative,
    ]
    k = len(v)
    every = mean_attribution(encoder, task.averaged, torch.cat([v, -v, task.strangers]), method, **params)
    shared = np.broadcast_to(every[:k], (len(x), *every[:k].shape))
    areas.append(perturbation_curves(encoder, x, v, shared, **settings).relative)
    times_input = multiplies_by_input(method)
    few = slice(0, len(x), max(1, len(x) // 8))
    unfaithful = infidelity(encoder, x, v, maps, multiply_by_input=times_input, n_perturbations=20, seed=seed)
    sensitive = sensitivity_max(encoder, x[few], v[:2], method, n_perturbations=4, seed=seed, **params)
    top = randomised(encoder, layers_from_top(encoder, x[:2])[:1], seed)
    random_top = paired_similarity(every[:k], mean_attribution(top, task.averaged, v, method, **params))
    return {
        **{name: float(np.mean(area)) for name, area in zip(AREAS, areas, strict=True)},
        "infidelity": float(np.nanmean(unfaithful)),
        "sensitivity": float(np.mean(sensitive)),
        "completeness": float(np.mean(completeness(encoder, x, v, maps).error)) if times_input else float("nan"),
        "random_genes": float(np.median(cross_concept(every[:k], every[2 * k :]))),
        "opposite": float(np.mean(paired_similarity(every[:k], every[k : 2 * k]))),
        "random_top": float(np.mean(random_top)),
        "auroc": task.found(maps, every[:k]),
        "seconds": seconds,
    }


def sound(row: dict[str, float]) -> bool:
    """Whether the method draws another map for another concept and for a random top layer."""
    return max(row["random_genes"], row["opposite"], row["random_top"]) < ALIKE
