"""What the numbers of a sanity check mean, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from stcsm.evaluation._faithfulness import FloatArray

ALIKE = 0.5
"""Spearman correlation from which two maps show much the same; maps of unrelated concepts stay below 0.4."""
SAME = 0.8
"""From here on they are nearly the same."""
STEADY = 0.7
"""Two models that agree less than this do not show one result."""
KIN = 0.5
"""Correlation of gene scores from which two concepts are relatives, whose maps should be alike."""


@dataclass(frozen=True)
class Checks:
    """Numbers of one concept's sanity check; all are Spearman correlations with the concept's own map.

    Attributes
    ----------
    name
        The concept.
    random
        (R,) maps of random concepts, over the same samples.
    opposite
        Map of the opposite concept, -v.
    others
        (name, correlation of maps, correlation of gene scores) of the other concepts.
    layers
        Network layers of the encoder, from the top.
    cascading
        (n, draws): layers 0 to i re-initialised.
    inputs
        (draws,): cells of every input shuffled.
    seeds
        Maps of two models from different seeds; empty for one model.
    """

    name: str
    random: FloatArray
    opposite: float
    others: Sequence[tuple[str, float, float]]
    layers: Sequence[str]
    cascading: FloatArray
    inputs: FloatArray
    seeds: ArrayLike = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """What the numbers mean.

    Attributes
    ----------
    sentences
        All of it.
    warnings
        Those among the sentences that warn.
    line
        In one sentence.
    """

    sentences: list[str]
    warnings: list[str]
    line: str


def verdict(checks: Checks, method: str) -> Verdict:
    """Say what the numbers mean.

    Parameters
    ----------
    checks
        Of one concept.
    method
        That made the maps.
    """
    said: list[str] = []
    warned: list[str] = []
    for sentence, bad in (
        _another_concept(checks, method),
        *_named_concepts(checks),
        _random_network(checks, method),
        _seeds(checks),
        _inputs(checks),
    ):
        said.append(sentence)
        if bad:
            warned.append(sentence)
    return Verdict(said, warned, " ".join(warned) or _line(checks))


def _line(c: Checks) -> str:
    same, n = int((c.random >= SAME).sum()), len(c.random)
    seeds = np.asarray(c.seeds, dtype=float)
    steady = (
        f"it holds from seed to seed ({seeds.min():z.2f})"
        if seeds.size
        else "one model only, so seeds are not compared"
    )
    return (
        f"the map is its own ({same} of {n} random genes give nearly the same one), it was learned (correlation "
        f"{c.cascading[-1].mean():z.2f} with the map of a random network), {steady}."
    )


def _another_concept(c: Checks, method: str) -> tuple[str, bool]:
    typical, n = float(np.median(c.random)), len(c.random)
    same = int((c.random >= SAME).sum())
    if typical >= ALIKE or c.opposite >= ALIKE:
        return (
            f"{method} draws {_degree(max(typical, c.opposite))} map whatever the concept: correlation {typical:z.2f} "
            f"with the maps of random genes (median of {n}), {c.opposite:z.2f} with the map of the opposite concept. "
            f"It shows what the encoder sees, not where {c.name!r} is; {_instead(method)}.",
            True,
        )
    opposite = "the opposite map" if c.opposite <= -SAME else "another map, if not the exact opposite"
    return (
        f"The map belongs to this concept: {same} of {n} random genes give nearly the same map (median correlation "
        f"{typical:z.2f}), and the opposite concept gives {opposite} ({c.opposite:z.2f}).",
        False,
    )


def _instead(method: str) -> str:
    """What to do about maps that do not depend on the concept; these methods follow the concept wherever it can be."""
    follow = [name for name in ("saliency", "integrated_gradients") if name != method]
    if len(follow) < 2:
        return "train longer, or take more genes: the concepts are much the same to this model"
    return f"take method={follow[0]!r} or {follow[1]!r}"


def _named_concepts(c: Checks) -> list[tuple[str, bool]]:
    if not c.others:
        return []
    name, maps, scores = max(c.others, key=lambda other: other[1])
    if maps < ALIKE:
        return [(f"No other concept named has a map like it (closest: {name!r}, correlation {maps:z.2f}).", False)]
    if scores >= KIN:
        return [
            (
                f"Of the concepts named, {name!r} has the map most like it (correlation {maps:z.2f}), and the same "
                f"genes carry both (correlation of their scores {scores:z.2f}).",
                False,
            )
        ]
    return [
        (
            f"Its map is {_degree(maps)} as that of {name!r} (correlation {maps:z.2f}), although other genes carry it "
            f"(correlation of their scores {scores:z.2f}).",
            maps >= SAME,
        )
    ]


def _random_network(c: Checks, method: str) -> tuple[str, bool]:
    mean = c.cascading.mean(axis=1)
    top, whole = float(mean[0]), float(mean[-1])
    if max(top, whole) >= ALIKE:
        what = "weights are random" if whole >= ALIKE else "last layer, the one that carries the concept, is random"
        found = whole if whole >= ALIKE else top
        return (
            f"{method} draws {_degree(found)} map with an encoder whose {what} (correlation "
            f"{found:z.2f}): the map comes from the inputs and the wiring, not from what was learned.",
            True,
        )
    return (
        f"The map was learned: it is lost when the encoder's last layer is random (correlation {top:z.2f}) and when "
        f"all its layers are ({whole:z.2f}).",
        False,
    )


def _seeds(c: Checks) -> tuple[str, bool]:
    seeds = np.asarray(c.seeds, dtype=float)
    if not seeds.size:
        return ("One model only: whether another seed would draw the same map is not known (n_seeds=2 tells).", False)
    low = float(seeds.min())
    if low < STEADY:
        return (
            f"Models from different seeds draw different maps (correlation {low:z.2f}): read only what the average "
            "shows clearly, or average more of them (n_seeds).",
            True,
        )
    return (f"Models from different seeds draw the same map (correlation {low:z.2f}).", False)


def _inputs(c: Checks) -> tuple[str, bool]:
    rho = float(c.inputs.mean())
    if rho >= ALIKE:
        return (
            f"The map stays when every gene's spots are shuffled (correlation {rho:z.2f}): it shows what the model has "
            "learned about the tissue, not the profiles of the genes it is averaged over.",
            False,
        )
    return (
        f"The map goes when every gene's spots are shuffled (correlation {rho:z.2f}): it follows the profiles of the "
        "genes it is averaged over.",
        False,
    )


def _degree(rho: float) -> str:
    return "nearly the same" if rho >= SAME else "much the same"
