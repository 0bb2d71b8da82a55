"""Sanity of concept maps: what they would look like for another concept, a random network, another seed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from torch import Tensor, nn
from tqdm.auto import tqdm

from stcsm.attribution import mean_attribution, method_class
from stcsm.evaluation import (
    Checks,
    agreement,
    cross_concept,
    input_randomisation,
    layer_randomisation,
    paired_similarity,
    verdict,
)
from stcsm.models import GeneVAE
from stcsm.tl._maps import Attribution, all_inputs, choose_genes, input_maps, where_any, work_groups
from stcsm.tl._state import (
    Concept,
    average_members,
    check_concepts,
    embedding,
    read_concepts,
    score_genes,
    write_entry,
)

MOST_KEPT = 100
"""Concepts up to which all correlations between maps are kept; of more, only the closest other concept is."""
MOST_CELLS = 5000
"""Spots that are compared at most; a rank correlation over more of them says the same."""
MOST_VALUES, FEWEST_GENES = 2**20, 20
"""Inputs, genes times spots, that are checked at most: genes stand for all of them, fewer on a large section."""
MOST_WARNINGS = 10


def sanity(
    adata: AnnData,
    model: GeneVAE,
    concepts: Sequence[str] | str | None = None,
    method: str = "saliency",
    genes: Any = "all",
    n_genes: int = 50,
    *,
    n_random: int = 50,
    n_draws: int = 5,
    most_genes: int = 200,
    seed: int = 0,
    progress: bool = False,
    **params: Any,
) -> None:
    """Check whether the maps of :func:`stcsm.tl.saliency` depend on the concept, on what was learned, and on the seed.

    Every map shows a spatial pattern. Each number is a Spearman correlation over the spots between the map of a concept
    and one that should differ: of other concepts and of the opposite one (Sixt et al. 2020), of an encoder whose
    network layers are re-initialised from the top or one at a time (Adebayo et al. 2018), of genes whose spots are
    shuffled; and one that should not differ, of another member of the ensemble. One thing changes at a time: random
    concepts and networks are mapped over the same genes as the concept. Of several sections, the maps that are compared
    are means over the samples of all, array position by array position.

    Parameters
    ----------
    adata
        With concepts (:func:`stcsm.tl.concepts`).
    model
        The model that the concepts were made with; it is not changed.
    concepts
        Names; None is all of them.
    method, genes, n_genes, **params
        As for :func:`stcsm.tl.saliency`.
    n_random
        Random concepts, one gene each.
    n_draws
        Random networks, and shuffled inputs.
    most_genes
        At most so many of the genes, sampled at random, stand for all; of a section of more than 5,000 spots fewer, one
        million over the spots, but 20. How many is stored with the settings.
    seed
        Of everything random.
    progress
        Show a progress bar.

    Writes
    ------
    ``adata.uns["stcsm"]["sanity"]``
        ``"summary"``: DataFrame, a row a concept: the numbers, what they mean in words, in one line, and the warning,
        empty where all is well. ``"random"`` (K, R), ``"opposite"`` (K,), ``"cascading"`` and ``"independent"``
        (K, layers, draws) with ``"layers"`` from the top, ``"inputs"`` (K, draws), ``"seeds"`` (K, pairs of members),
        ``"correlation"`` (K, K) between concepts (up to 100 of them), and the settings. With several members, maps
        are averaged as they are for the map itself.

    Warns
    -----
    UserWarning
        In words, where a map would look much the same for another concept or a random network, or does not hold
        from seed to seed.

    Raises
    ------
    ValueError
        If there are no concepts, they come from another model, a name is unknown, or a setting is out of range.

    Examples
    --------
    >>> stcsm.tl.sanity(adata, model)
    >>> adata.uns["stcsm"]["sanity"]["summary"]
    """
    check_concepts(adata, model)
    method_class(method)
    for name, value in (("n_random", n_random), ("n_draws", n_draws), ("most_genes", most_genes)):
        if value < 1:
            raise ValueError(f"Expected {name} of 1 or more, found {value}")
    chosen = read_concepts(adata, concepts)
    latents = embedding(adata, model)
    how = Attribution(method, genes, n_genes, params)
    rows = choose_genes(adata, model, how, chosen)
    # On a grid, every gene is zero off the tissue, and what a map says there does not count.
    tissue = where_any(model, _some(model.trained_genes, most_genes, seed))
    inputs_of_a_gene = math.prod(model.input_shape) * len(model.parts())
    most_genes = min(most_genes, max(MOST_VALUES // inputs_of_a_gene, FEWEST_GENES))
    job = _Job(model, how, n_draws, seed, tissue, _some_cells(tissue, seed))
    random_vectors = _random_vectors(model, latents, n_random, seed)
    found: list[tuple[list[int], _Found]] = []
    with tqdm(work_groups(rows), desc="sanity", disable=not progress, leave=False) as shown:
        for group in shown:
            some = _some(rows[group[0]], most_genes, seed)
            found.append((group, _check(job, some, [chosen[k] for k in group], random_vectors)))
    whole = _joined(found, len(chosen))
    relatives = _correlation(score_genes(latents, chosen)[model.trained_genes])
    apart = cross_concept(np.stack([f.maps[i] for f, i in whole]))
    record, texts = _record(chosen, whole, apart, relatives, method)
    write_entry(
        adata,
        "sanity",
        {
            **record,
            "method": method,
            "genes": genes if isinstance(genes, str) else np.asarray(list(genes), dtype=object),
            "n_random": n_random,
            "n_draws": n_draws,
            "most_genes": most_genes,
            "seed": seed,
            "fingerprint": model.fingerprint(),
        },
    )
    for text in texts[:MOST_WARNINGS]:
        warnings.warn(text, UserWarning, stacklevel=2)
    if len(texts) > MOST_WARNINGS:
        more = "and {} more warnings of this kind, in adata.uns['stcsm']['sanity']['summary']"
        warnings.warn(more.format(len(texts) - MOST_WARNINGS), UserWarning, stacklevel=2)


@dataclass(frozen=True)
class _Job:
    model: GeneVAE
    how: Attribution
    n_draws: int
    seed: int
    tissue: np.ndarray
    where: np.ndarray


@dataclass(frozen=True)
class _Found:
    """Of k concepts: maps (k, F) and their correlations with those of what should differ, first axis k."""

    maps: np.ndarray
    random: np.ndarray
    opposite: np.ndarray
    layers: list[str]
    cascading: np.ndarray
    independent: np.ndarray
    inputs: np.ndarray
    seeds: np.ndarray


def _check(job: _Job, genes: np.ndarray, concepts: list[Concept], random_vectors: list[np.ndarray]) -> _Found:
    """Check concepts whose maps are averaged over the same genes."""
    x = all_inputs(job.model, genes).to(job.model.device)
    k, where = len(concepts), job.where
    by_member, layers, inputs = [], [], []
    for m, encoder in enumerate(job.model.encoders):
        own = np.stack([c.vectors[m] for c in concepts])
        parts = input_maps(job.model, m, job.how, genes, np.concatenate([own, -own, random_vectors[m]]))
        maps = np.average([part.maps for part in parts], axis=0, weights=[part.n for part in parts])[:, where]
        by_member.append(maps)

        def of_network(other: nn.Module, own: np.ndarray = own) -> np.ndarray:
            return mean_attribution(other, x, own, job.how.method, **(job.how.params or {}))[:, where]

        def of_inputs(rows: Tensor, encoder: nn.Module = encoder, own: np.ndarray = own) -> np.ndarray:
            return mean_attribution(encoder, rows, own, job.how.method, **(job.how.params or {}))[:, where]

        settings: Any = {"original": maps[:k], "n_draws": job.n_draws, "seed": job.seed}
        layers.append(layer_randomisation(encoder, x[:2], of_network, **settings))
        inputs.append(input_randomisation(x, of_inputs, moving=job.tissue, **settings))
    maps = average_members([maps.T for maps in by_member]).T
    return _Found(
        maps=maps[:k],
        random=cross_concept(maps[:k], maps[2 * k :]),
        opposite=paired_similarity(maps[:k], maps[k : 2 * k]),
        layers=layers[0].layers,
        cascading=np.moveaxis(np.mean([r.cascading for r in layers], axis=0), -1, 0),
        independent=np.moveaxis(np.mean([r.independent for r in layers], axis=0), -1, 0),
        inputs=np.mean(inputs, axis=0).T,
        seeds=agreement([maps[:k] for maps in by_member]).T,
    )


def _some_cells(where: np.ndarray, seed: int) -> np.ndarray:
    cells = np.flatnonzero(where)
    if len(cells) <= MOST_CELLS:
        return where
    some = np.zeros(where.size, dtype=bool)
    some[np.random.default_rng([seed, 3]).choice(cells, MOST_CELLS, replace=False)] = True
    return some.reshape(where.shape)


def _random_vectors(model: GeneVAE, latents: list[np.ndarray], n: int, seed: int) -> list[np.ndarray]:
    """Concepts of one random gene each, the same genes in every member: its latent minus the mean of all, (n, L)."""
    rng = np.random.default_rng([seed, 1])
    genes = rng.choice(model.trained_genes, n, replace=n > len(model.trained_genes))
    return [z[genes] - np.nanmean(z, axis=0) for z in latents]


def _some(genes: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(genes) <= most:
        return genes
    return np.sort(np.random.default_rng([seed, 2]).choice(genes, most, replace=False))


def _joined(found: list[tuple[list[int], _Found]], n: int) -> list[tuple[_Found, int]]:
    """For each concept the group that it was checked in, and its row there."""
    rows: list[Any] = [None] * n
    for group, result in found:
        for i, k in enumerate(group):
            rows[k] = (result, i)
    return rows


def _correlation(scores: np.ndarray) -> np.ndarray:
    """Pearson correlations (K, K) between the genes' scores."""
    return np.atleast_2d(np.corrcoef(scores, rowvar=False))


def _record(
    concepts: list[Concept],
    whole: list[tuple[_Found, int]],
    apart: np.ndarray,
    relatives: np.ndarray,
    method: str,
) -> tuple[dict[str, Any], list[str]]:
    """What is stored, and the warnings."""
    labels = [c.label for c in concepts]
    lines, texts = [], []
    for k, (f, i) in enumerate(whole):
        others = [(labels[j], apart[k, j], relatives[k, j]) for j in range(len(labels)) if j != k]
        said = verdict(
            Checks(labels[k], f.random[i], f.opposite[i], others, f.layers, f.cascading[i], f.inputs[i], f.seeds[i]),
            method,
        )
        texts += [f"{labels[k]}: {text}" for text in said.warnings]
        closest = max(others, key=lambda other: other[1], default=("", np.nan, np.nan))
        lines.append(
            {
                "concept": labels[k],
                "random_concepts": float(np.median(f.random[i])),
                "opposite_concept": float(f.opposite[i]),
                "closest_concept": closest[0],
                "closest_map": float(closest[1]),
                "random_top_layer": float(f.cascading[i][0].mean()),
                "random_network": float(f.cascading[i][-1].mean()),
                "shuffled_inputs": float(f.inputs[i].mean()),
                "other_seed": float(f.seeds[i].min()) if f.seeds[i].size else np.nan,
                "line": said.line,
                "words": " ".join(said.sentences),
                "warning": " ".join(said.warnings),
            }
        )
    keys = [c.key for c in concepts]
    stacked = {
        name: np.stack([getattr(f, name)[i] for f, i in whole])
        for name in ("random", "opposite", "cascading", "independent", "inputs", "seeds")
    }
    record = {
        "summary": pd.DataFrame(lines, index=keys),
        **{name: values for name, values in stacked.items() if values.size},
        "layers": np.asarray(whole[0][0].layers, dtype=object),
        "concepts": np.asarray(keys, dtype=object),
    }
    if len(keys) <= MOST_KEPT:
        record["correlation"] = apart
    return record, texts
