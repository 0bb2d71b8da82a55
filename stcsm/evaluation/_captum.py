"""Infidelity and maximum sensitivity through captum, with draws that depend on nothing but seed and sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stcsm.attribution import ConceptScore, attribute, evaluation_mode, method_class
from stcsm.evaluation._faithfulness import FloatArray, Scorer

Explain = Callable[[Tensor], Any]


def multiplies_by_input(method: str) -> bool:
    """Whether a method's map is a contribution (slope times input) and not a slope.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    return method_class(method).times_input


def infidelity(
    encoder: nn.Module,
    inputs: Any,
    concepts: Any,
    maps: Any,
    *,
    multiply_by_input: bool,
    baseline: Any = 0.0,
    share: float = 0.2,
    n_perturbations: int = 50,
    normalise: bool = True,
    seed: int = 0,
    batch_size: int = 256,
) -> FloatArray:
    """Infidelity of maps (Yeh et al. 2019, arXiv 1901.09392), computed by captum.

    Each perturbation replaces a random share of the cells by the baseline, which for sparse inputs is the only kind
    that stays among possible inputs; the map should foretell how much the score changes.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    maps
        Attributions of those inputs, (N, ...) for one concept or (N, K, ...).
    multiply_by_input
        Whether the maps are contributions, so that the perturbation that they are multiplied with is
        (x - x') / (x - baseline), or slopes, x - x' (see :func:`multiplies_by_input`).
    baseline
        A number, a sample, or one for each input.
    share
        Chance of each cell to be replaced.
    n_perturbations
        Of each sample.
    normalise
        Let captum bring each map to the scale that fits best, and divide by the infidelity of a map of zeros: 0
        foretells everything, 1 nothing. Otherwise the mean squared error, in squared units of the score.
    seed
        Of the perturbations.
    batch_size
        Most samples in one pass.

    Returns
    -------
    (N, K), or (N,) for one concept; NaN where no perturbation changes the score.

    Raises
    ------
    ValueError
        If shapes do not fit, ``maps`` are not finite, or a setting is out of range.
    """
    run = Scorer(encoder, inputs, concepts, batch_size)
    values = run.read_maps(maps)
    if not 0 < share < 1:
        raise ValueError(f"Expected a share between 0 and 1, found {share}.")
    _at_least_one(n_perturbations, "n_perturbations")
    cover = run.baseline(baseline)
    scorer = ConceptScore(run.encoder, run.vectors)
    out = np.empty(values.shape[:2])
    at_once = max(1, run.batch_size // n_perturbations)
    with evaluation_mode(scorer, run.device), torch.no_grad():
        for start in range(0, len(run.x), at_once):
            part = slice(start, start + at_once)
            x, b = run.x[part].to(run.device), cover[part].to(run.device)
            gone = torch.from_numpy(
                np.stack([_draws(seed, start + i, n_perturbations, run.shape) < share for i in range(len(x))])
            ).to(run.device)
            for c in range(values.shape[1]):
                maps_ = torch.from_numpy(values[part, c]).to(x).reshape(x.shape)
                settings: Any = {"multiply": multiply_by_input, "target": c, "n": n_perturbations}
                if normalise:
                    best = _captum_infidelity(scorer, x, b, maps_, gone, normalise=True, **settings)
                    nothing = _captum_infidelity(scorer, x, b, torch.zeros_like(x), gone, normalise=False, **settings)
                    out[part, c] = (best / torch.where(nothing > 0, nothing, torch.nan)).cpu().numpy()
                else:
                    found = _captum_infidelity(scorer, x, b, maps_, gone, normalise=False, **settings)
                    out[part, c] = found.cpu().numpy()
    return run.shaped(out)


def _captum_infidelity(
    scorer: nn.Module, x: Tensor, cover: Tensor, maps: Tensor, gone: Tensor, *, normalise: bool, multiply: bool,
    target: int, n: int,
) -> Tensor:  # fmt: skip
    from captum.metrics import infidelity as captums
    from captum.metrics import infidelity_perturb_func_decorator

    @infidelity_perturb_func_decorator(multiply)
    def perturb(rows: Tensor, baselines: Tensor) -> Tensor:
        return torch.where(gone.reshape(rows.shape), baselines, rows)

    # Each sample comes n times in a row; captum repeats a baseline only where it has as many rows as the inputs and
    # more than one, so that it is given repeated.
    repeated = cover.repeat_interleave(n, dim=0) if len(x) == 1 else cover
    return captums(
        scorer, perturb, x, maps, baselines=repeated, target=target, n_perturb_samples=n, normalize=normalise
    )


def sensitivity_max(
    encoder: nn.Module,
    inputs: Any,
    concepts: Any,
    method: str = "integrated_gradients",
    *,
    radius: float = 0.02,
    n_perturbations: int = 10,
    seed: int = 0,
    batch_size: int = 256,
    **params: Any,
) -> FloatArray:
    """Largest relative change of a map under small changes of the input (Yeh et al. 2019), computed by captum.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    method, **params
        Of :func:`stcsm.attribution.attribute`.
    radius
        Uniform noise of at most this share of the sample's own range on every cell.
    n_perturbations
        Of each sample.
    seed
        Of the noise.
    batch_size
        Most samples in one pass.

    Returns
    -------
    (N, K), or (N,) for one concept: |map' - map| / |map| in the Euclidean norm, the largest over the perturbations.

    Raises
    ------
    ValueError
        If shapes do not fit or a setting is out of range.
    """
    run = Scorer(encoder, inputs, concepts, batch_size)
    if not 0 < radius < np.inf:
        raise ValueError(f"Expected a radius above 0, found {radius}.")
    _at_least_one(n_perturbations, "n_perturbations")
    out = np.empty((len(run.x), len(run.vectors)))
    at_once = max(1, run.batch_size // n_perturbations)
    for start in range(0, len(run.x), at_once):
        x = run.x[start : start + at_once]
        width = radius * (x.flatten(1).amax(1) - x.flatten(1).amin(1))
        noise = torch.from_numpy(
            np.stack([2 * _draws(seed, start + i, n_perturbations, run.shape) - 1 for i in range(len(x))])
        ).to(x)
        noise = noise * width.reshape(-1, *[1] * (noise.ndim - 1))
        for c, vector in enumerate(run.vectors):
            out[start : start + at_once, c] = _captum_sensitivity(run, x, noise, vector, method, start, params)
    return run.shaped(out)


def _captum_sensitivity(
    run: Scorer, x: Tensor, noise: Tensor, vector: Tensor, method: str, start: int, params: dict[str, Any]
) -> np.ndarray:
    from captum.metrics import sensitivity_max as captums

    n = noise.shape[1]

    def explain(given: Any) -> Any:
        # As captum's own methods do: a tuple for a tuple (it walks over the rows of a tensor otherwise).
        return (maps_of(given[0]),) if isinstance(given, tuple) else maps_of(given)

    def maps_of(rows: Tensor) -> Tensor:
        if not method_class(method).stochastic:
            return attribute(run.encoder, rows, vector, method, batch_size=run.batch_size, **params)
        # A sample keeps its own noise of the method: what is asked is how the map follows the input.
        copies = len(rows) // len(x)
        made = [
            attribute(run.encoder, rows[i : i + 1], vector, method, first=start + i // copies, **params)
            for i in range(len(rows))
        ]
        return torch.cat(made)

    def perturb(rows: Tensor) -> Tensor:
        return rows + noise.reshape(rows.shape)

    with warnings.catch_warnings():
        warnings.simplefilter("once")
        return captums(explain, x, perturb, n_perturb_samples=n).cpu().numpy()


def _draws(seed: int, sample: int, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform draws (n, ...) in [0, 1) that depend on seed and sample alone."""
    return np.random.default_rng([seed, sample]).random((n, *shape))


def _at_least_one(value: int, name: str) -> None:
    if value < 1:
        raise ValueError(f"Expected {name} of 1 or more, found {value}.")
