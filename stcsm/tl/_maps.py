"""Maps of concepts over the model's spots: the one place where they are made, for stored and for random concepts alike.

Every map is (K, S'): K concepts, and the S' spots that the model knows (``model.spots``). Of an ensemble each member's
maps are standardised and averaged.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from anndata import AnnData
from scipy import sparse
from scipy.special import expit
from torch import Tensor

from stcsm.attribution import attribute, make_method, mean_attribution, method_class
from stcsm.concepts import concept_vectors, match_genes, standardise
from stcsm.models import GeneVAE
from stcsm.space import HeldOutCounts, choose_components, gather, principal_axes, some_spots, stored_blocks
from stcsm.tl._state import CONCEPTS_AT_ONCE, Concept, average_members, embedding, gene_rows, score_genes

N_RANDOM_GENES = 1500
"""Genes that stand for all genes; a gradient averaged over more of them changes little."""
N_NEAREST = 10
"""Genes beside a concept's own in the part "nearest": five do as well, twenty dilute (benchmarks/RECOVERY.md)."""
SCALED_TO = 0.1
"""Counts of expression maps are scaled to this share of the median spot's depth before the logarithm.

It then acts on large counts alone; at the median itself, single counts of shallow spots are outliers
(benchmarks/RECOVERY.md).
"""
PCA_GENES, PCA_SPOTS = 4000, 5000
"""The number of principal components is chosen on at most so many genes and spots."""
DIVIDED = 2**25
"""Attributions, of single genes, that are held at once where they are divided among pooled spots."""
BLOCK, VALUES = 256, 2**22
"""At most BLOCK genes are dense at once, fewer where they would hold more than VALUES values."""
STORED = 2**27
"""Values, counted as if they were dense, that are read together where they stay sparse."""
KEPT = 4
"""Sets of latents' maps that are kept of one model."""
KEPT_VALUES = 2**26
"""Values of them at most, 512 MB; the newest set is kept whatever its size."""


# ---- Attribution


@dataclass(frozen=True)
class Attribution:
    """How attribution maps are made.

    Attributes
    ----------
    method, params
        Of :func:`stcsm.attribution.attribute`.
    genes, n_genes
        Genes that maps are averaged over. ``"all"``: a fixed random 1500 of the genes trained on; ``"nearest"``: the
        ``n_genes`` trained genes of highest concept score; ``"concept"``: the concept's own genes; or gene names.
    """

    method: str
    genes: Any = "all"
    n_genes: int = 50
    params: dict[str, Any] | None = None

    @property
    def same_genes(self) -> bool:
        """Whether all concepts are averaged over the same genes."""
        return not (isinstance(self.genes, str) and self.genes in ("nearest", "concept"))

    @property
    def linear(self) -> bool:
        """Whether maps are linear in the concept's vector, so that those of the latents make them all."""
        return self.same_genes and method_class(self.method).linear


def attribution_maps(
    model: GeneVAE, how: Attribution, concepts: list[Concept], rows: list[np.ndarray], progress: bool = False
) -> np.ndarray:
    """Signed mean over genes of the concepts' attributions, (K, S'), members averaged."""
    return average_members([maps.T for maps in member_maps(model, how, concepts, rows, progress)]).T


def member_maps(
    model: GeneVAE, how: Attribution, concepts: list[Concept], rows: list[np.ndarray], progress: bool = False
) -> list[np.ndarray]:
    """Signed mean over genes of the concepts' attributions, (K, S') of every member.

    ``rows`` are the genes of each concept (:func:`choose_genes`). Of several sections, a spot has the mean over its own
    section's profiles of the genes that have counts there.
    """
    out = []
    for m in range(model.n_members):
        maps = np.empty((len(concepts), len(model.spots)))
        for group in work_groups(rows):
            vectors = np.stack([concepts[k].vectors[m] for k in group])
            maps[group] = _at_spots(model, input_maps(model, m, how, rows[group[0]], vectors, progress))
        out.append(maps)
    return out


def latent_maps(adata: AnnData, model: GeneVAE, how: Attribution) -> list[np.ndarray]:
    """Maps (L, S') of the latents themselves, of every member, for a method that is linear in the concept."""
    genes, unit = _shared_genes(adata, model, how.genes), np.eye(model.settings["n_latent"])
    return [_at_spots(model, input_maps(model, m, how, genes, unit)) for m in range(model.n_members)]


@dataclass(frozen=True)
class InputMaps:
    """Mean attributions (K, ...) over the inputs of one part of the tissue: a section, or all of it.

    ``spots`` of the model's are its own, and ``n`` samples were averaged. Where spots are pooled, attributions that add
    up have been divided among them, each gene's by its own counts: ``shares`` (K, S'') is their mean at the spots.
    """

    section: str | None
    spots: Any
    n: int
    maps: np.ndarray
    shares: np.ndarray | None = None

    def times(self, vectors: np.ndarray) -> InputMaps:
        """Maps of vectors (K, L), where these are maps of the latents."""
        shares = None if self.shares is None else np.tensordot(vectors, self.shares, 1)
        return replace(self, maps=np.tensordot(vectors, self.maps, 1), shares=shares)


def input_maps(
    model: GeneVAE, member: int, how: Attribution, genes: np.ndarray, vectors: np.ndarray, progress: bool = False
) -> list[InputMaps]:
    """Mean attributions of concept vectors (K, L) over the encoder's inputs, of every part of the tissue.

    Methods linear in the concept attribute the latents, whose maps are kept (:func:`_kept_maps`), however many
    concepts there are and however often they are asked for. Parameters that are arrays cannot be compared, so maps that
    are made with them are not kept. Methods that run the encoder many times for a map (integrated gradients) attribute
    the concepts directly where these are fewer than the latents, unless maps of the latents are kept.
    """
    params = how.params or {}
    if not (how.linear and all(_comparable(value) for value in params.values())):
        return _attributed(model, member, how, genes, vectors, progress)
    few = len(vectors) < model.settings["n_latent"]
    if few and make_method(how.method, params).variants(model.input_shape) > 1 and not _is_kept(model, how, genes):
        return _attributed(model, member, how, genes, vectors, progress)
    return [
        part.times(np.asarray(vectors, dtype=np.float64)) for part in _kept_maps(model, how, genes, progress)[member]
    ]


_kept: WeakKeyDictionary[GeneVAE, tuple[str, OrderedDict[Any, list[list[InputMaps]]]]] = WeakKeyDictionary()


_lock = threading.RLock()


def _key(how: Attribution, genes: np.ndarray) -> Any:
    return method_class(how.method), frozenset((how.params or {}).items()), genes.tobytes()


def _is_kept(model: GeneVAE, how: Attribution, genes: np.ndarray) -> bool:
    known, kept = _kept.get(model, ("", OrderedDict()))
    return known == model.fingerprint() and _key(how, genes) in kept


def _kept_maps(model: GeneVAE, how: Attribution, genes: np.ndarray, progress: bool) -> list[list[InputMaps]]:
    """Maps of the latents of every member, attributed once for a state of the model.

    They live in memory, not in the AnnData, as long as the model does: the last :data:`KEPT` combinations of method,
    parameters and genes, M x L x S' values each, until a weight changes.
    """
    state, key = model.fingerprint(), _key(how, genes)
    with _lock:  # a second thread waits for the maps and does not make them again
        known, kept = _kept.get(model, ("", OrderedDict()))
        if known != state:
            kept = OrderedDict()
        if key not in kept:
            unit = np.eye(model.settings["n_latent"])
            kept[key] = [_attributed(model, m, how, genes, unit, progress) for m in range(model.n_members)]
            while len(kept) > 1 and (len(kept) > KEPT or _values(kept) > KEPT_VALUES):
                kept.popitem(last=False)
            _kept[model] = (state, kept)
        kept.move_to_end(key)
        return kept[key]


def _values(kept: OrderedDict[Any, list[list[InputMaps]]]) -> int:
    parts = [part for members in kept.values() for parts in members for part in parts]
    return sum(m.size for part in parts for m in (part.maps, part.shares) if m is not None)


def _comparable(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_comparable(v) for v in value)
    return value is None or isinstance(value, (str, int, float, np.generic))


def _attributed(
    model: GeneVAE, member: int, how: Attribution, genes: np.ndarray, vectors: np.ndarray, progress: bool
) -> list[InputMaps]:
    """The attribution itself, part of the tissue by part."""
    params = how.params or {}
    if not len(genes):
        raise ValueError("Expected genes to average over, found none")
    if "batch_size" in params:
        raise TypeError(f"Expected parameters of {how.method}, found batch_size, which is fixed to bound the memory")
    out = []
    for section, spots in model.parts():
        seen = _genes_seen(model, genes, section)
        if model.is_pooled and method_class(how.method).times_input:
            maps, shares = _mean_shares(model, member, how, seen, vectors, section)
            out.append(InputMaps(section, spots, len(seen), maps, shares))
            continue
        maps = mean_attribution(
            model.encoders[member], _batches(model, seen, section), vectors, how.method, progress=progress, **params
        )
        out.append(InputMaps(section, spots, len(seen), maps))
    return out


def _mean_shares(
    model: GeneVAE, member: int, how: Attribution, genes: np.ndarray, vectors: np.ndarray, section: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over genes of attributions that add up: over features (K, F), and divided among the spots (K, S'')."""
    maps: Any = 0.0
    shares: Any = 0.0
    step = max(1, DIVIDED // (len(vectors) * int(np.prod(model.input_shape))))
    for start in range(0, len(genes), step):
        some = genes[start : start + step]
        inputs = model.inputs(some, section).to(model.device)
        made = attribute(model.encoders[member], inputs, vectors, how.method, **(how.params or {})).cpu().numpy()
        maps = maps + made.sum(axis=0, dtype=np.float64)
        shares = shares + model.shares_at_spots(made, some, section, summed=True)
    return maps / len(genes), shares / len(genes)


def _at_spots(model: GeneVAE, parts: list[InputMaps]) -> np.ndarray:
    """Maps (K, S') over the model's spots, every part's at its own."""
    maps = np.empty((len(parts[0].maps), len(model.spots)))
    for part in parts:
        shared = part.shares is not None
        maps[:, part.spots] = part.shares if shared else model.maps_to_spots(part.maps, part.section)
    return maps


def _batches(model: GeneVAE, genes: np.ndarray, section: str | None) -> Iterator[Tensor]:
    step = _at_once(math.prod(model.input_shape))
    for start in range(0, len(genes), step):
        yield model.inputs(genes[start : start + step], section).to(model.device)


def _at_once(n_spots: int) -> int:
    """Genes that are dense at once."""
    return int(np.clip(VALUES // max(n_spots, 1), 1, BLOCK))


def all_inputs(model: GeneVAE, genes: np.ndarray) -> Tensor:
    """Encoder inputs of genes in every section that has counts of them, section after section, (n, ...)."""
    return torch.cat([model.inputs(_genes_seen(model, genes, section), section) for section, _ in model.parts()])


def where_any(model: GeneVAE, genes: np.ndarray) -> np.ndarray:
    """Mask of an input's shape: where any of the genes is not zero in any section."""
    found = np.zeros(model.input_shape, dtype=bool)
    for section, _ in model.parts():
        for batch in _batches(model, _genes_seen(model, genes, section), section):
            found |= (batch != 0).any(dim=0).cpu().numpy()
    return found


def _genes_seen(model: GeneVAE, genes: np.ndarray, section: str | None) -> np.ndarray:
    """Those of the genes that have a count in the section; all where none has, whose input is zero then."""
    if section is None:
        return genes
    seen = genes[model.section_totals(section)[genes] > 0]
    return seen if len(seen) else genes


# ---- Genes that attribution is averaged over


def choose_genes(adata: AnnData, model: GeneVAE, how: Attribution, concepts: list[Concept]) -> list[np.ndarray]:
    """Indices of the genes whose maps are averaged, for each concept; one array where all have the same.

    Raises
    ------
    ValueError
        If a name is unknown or has no counts, a concept has no gene with counts, or ``genes`` is none of the choices.
    """
    if how.same_genes:
        return [_shared_genes(adata, model, how.genes)] * len(concepts)
    if how.genes == "concept":
        return [_with_counts(model, c, gene_rows(c, adata.var_names)[0]) for c in concepts]
    if how.n_genes < 1:
        raise ValueError(f"Expected n_genes of 1 or more, found {how.n_genes}")
    return list(_highest_scoring(model, score_genes(embedding(adata, model), concepts), how.n_genes))


def work_groups(rows: Sequence[np.ndarray]) -> list[list[int]]:
    """Numbers of the concepts that share the work: all where they have the same genes, otherwise each by itself."""
    if all(r is rows[0] for r in rows):
        return [list(range(len(rows)))]
    return [[k] for k in range(len(rows))]


def _shared_genes(adata: AnnData, model: GeneVAE, genes: Any) -> np.ndarray:
    if isinstance(genes, str):
        if genes == "all":
            return _random_genes(model)
        if genes not in adata.var_names:
            raise ValueError(f"Expected genes to be 'all', 'nearest', 'concept' or gene names, found {genes!r}")
        genes = [genes]
    index = match_genes(list(genes), adata.var_names, missing="error").index
    without = index[model.reader.gene_totals[index] == 0]
    if len(without):
        raise ValueError(f"Expected genes with counts, found {adata.var_names[without[0]]!r} without any; leave it out")
    return np.sort(index)


def _random_genes(model: GeneVAE) -> np.ndarray:
    """The fixed random genes that stand for all genes: the same for every concept and call."""
    rng = np.random.default_rng(model.settings["seed"])
    n = min(N_RANDOM_GENES, len(model.trained_genes))
    return np.sort(rng.choice(model.trained_genes, n, replace=False))


def _highest_scoring(model: GeneVAE, scores: np.ndarray, n: int) -> np.ndarray:
    """Trained genes of highest score on each concept, ascending (K, n), by the scores (G, K) of all genes."""
    # A loaded model may have been trained on genes that have no count here, and no score.
    trained = model.trained_genes[model.reader.gene_totals[model.trained_genes] > 0]
    n = min(n, len(trained))
    if n == 0:
        return np.empty((scores.shape[1], 0), dtype=trained.dtype)
    best_last = np.argpartition(np.ascontiguousarray(scores[trained].T), len(trained) - n, axis=1)
    return np.sort(trained[best_last[:, len(trained) - n :]], axis=1)


def _with_counts(model: GeneVAE, concept: Concept, rows: np.ndarray) -> np.ndarray:
    kept = np.sort(rows[model.reader.gene_totals[rows] > 0])
    if not len(kept):
        raise ValueError(
            f"Expected a gene with counts in concept {concept.key!r}, found that its {len(rows)} genes have none"
        )
    return kept


# ---- The decoder


def decoded_maps(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Decoder at the mean gene plus the concept, minus decoder at the mean gene, (K, S')."""
    by_member = []
    for m, latent in enumerate(embedding(adata, model)):
        centre = np.nanmean(latent, axis=0)
        points = np.concatenate([centre[None], centre + _steps(model, concepts, latent, m)])
        f = model.decode(points, m)[:, model.spots].astype(np.float64)
        f -= f.mean(axis=1, keepdims=True)
        by_member.append((f[1:] - f[0]).T)
    return average_members(by_member).T


def decoded_points(model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Decoder at the concepts themselves, (K, S'), which have to be points of the latent space and not directions.

    Raises
    ------
    ValueError
        If a concept is a direction.
    """
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

    Plain means point at the genes themselves; other vectors are directions, along which the genes' distance from the
    mean gene says how far to go. The encoded profile of a label has no genes: it is where it is.
    """
    steps = np.stack([c.vectors[member] for c in concepts])
    with_genes = [k for k, c in enumerate(concepts) if len(c.genes)]
    if not with_genes:
        return steps
    found = [gene_rows(concepts[k], model.gene_names) for k in with_genes]
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


# ---- A linear encoder


def linear_maps(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Saliency maps (K, S') of concepts in a linear encoder.

    The encoder is that of principal component analysis, with all genes that have a count as samples (faint ones help
    here: benchmarks/RECOVERY.md) and their depth-corrected input u as features (of several sections, the spots of all,
    u taken within each); held-out counts choose the number of components. The score of a concept, its genes' mean
    latent minus that of all genes, times a gene's latent, is linear in u, so its gradient is one map for all genes.
    """
    seed = int(model.settings["seed"])
    genes = np.flatnonzero(model.reader.gene_totals > 0)
    step = int(np.clip(STORED // max(len(model.spots), 1), 1, BLOCK))
    blocks = ((start, 0, _depth_corrected(model, genes[start : start + step])) for start in range(0, len(genes), step))
    profiles = gather(blocks, (len(genes), len(model.spots)))
    axes, centre = principal_axes(profiles, _number_of_components(model, seed), seed=seed)
    latents = np.asarray(profiles @ axes) - centre @ axes
    return np.asarray(_gene_shares(model, concepts)[:, genes] @ latents @ axes.T)


def _number_of_components(model: GeneVAE, seed: int) -> int:
    """Number of components, chosen on some of a large section."""
    rng = np.random.default_rng(seed)
    genes = model.trained_genes
    genes = genes if len(genes) <= PCA_GENES else np.sort(rng.choice(genes, PCA_GENES, replace=False))
    spots = some_spots(model.coordinates, PCA_SPOTS, seed)
    return choose_components(HeldOutCounts(model.reader.counts(genes, spots), seed=seed), seed=seed)


def _depth_corrected(model: GeneVAE, genes: np.ndarray) -> sparse.csr_array:
    """Depth-corrected profiles u (n, S') of genes, as sparse as their counts."""
    u = model.reader.sparse_profiles(genes)
    owner = np.repeat(genes, np.diff(u.indptr))
    u.data = np.log1p(u.data / (model.expected_counts(owner, u.indices) + np.float32(0.5)))
    return u


# ---- Expression


def expression_maps(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's genes, (K, S'); zero where it has none.

    Counts are scaled to a tenth of the median spot's depth, ``log1p`` is taken, and each gene is brought to
    mean 0 and standard deviation 1 over spots before genes are averaged by their weights; of several sections, each
    within its own.
    """
    return _standardised_expression(model, _gene_shares(model, concepts))


def scaled_expression_maps(adata: AnnData, matrix: Any, concepts: list[Concept], spots: np.ndarray) -> np.ndarray:
    """Mean of each concept's genes' counts over their largest, by their weights, (K, S); without a model.

    Counts are read twice in blocks, for the largest and for the means, whatever holds them.

    Parameters
    ----------
    adata
        Names the genes.
    matrix
        Counts (S, G) in memory, backed or lazy.
    concepts
        With genes.
    spots
        Mask (S,) of the spots among which the largest is sought.
    """
    found = [gene_rows(concept, adata.var_names) for concept in concepts]
    used = np.unique(np.concatenate([rows for rows, _ in found]))
    largest = np.ones(len(used))
    for row, start, block in stored_blocks(matrix):
        own, here = _genes_here(used, start, block)
        rows = spots[row : row + block.shape[0]]
        if own.stop > own.start and rows.any():
            part = block[:, here] if rows.all() else block[np.flatnonzero(rows)][:, here]
            largest[own] = np.maximum(largest[own], _dense(part.max(axis=0)).ravel())
    weights = sparse.csr_array(
        (
            np.concatenate([w / max(float(np.abs(w).sum()), 1e-12) for _, w in found]),
            np.searchsorted(used, np.concatenate([rows for rows, _ in found])),
            np.cumsum([0, *(len(rows) for rows, _ in found)]),
        ),
        shape=(len(found), len(used)),
    )
    shares = sparse.csc_array(weights @ sparse.diags_array(1 / largest))
    maps = np.zeros((len(concepts), adata.n_obs))
    for first, start, block in stored_blocks(matrix):
        own, here = _genes_here(used, start, block)
        part = sparse.csr_array(block[:, here], dtype=np.float64)
        maps[:, first : first + part.shape[0]] += sparse.csr_array(shares[:, own] @ part.T).toarray()
    return maps


def _genes_here(genes: np.ndarray, start: int, block: Any) -> tuple[slice, np.ndarray]:
    """Which of the genes (ascending) are columns of a block that begins at column ``start``, and where in it."""
    first, last = np.searchsorted(genes, [start, start + block.shape[1]])
    return slice(int(first), int(last)), genes[first:last] - start


def _dense(values: Any) -> np.ndarray:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values)


def nearest_maps(adata: AnnData, model: GeneVAE, concepts: list[Concept]) -> np.ndarray:
    """Mean standardised log-normalised expression of each concept's genes and its nearest genes, (K, S').

    The nearest are the ten trained genes of highest concept score. Those outside the concept's set count as much as
    one gene of it does (of unequal weights: as one of their effective number, 1 over the sum of squared shares).
    """
    share = _gene_shares(model, concepts)
    square = np.asarray(share.multiply(share).sum(axis=1)).ravel()
    own = sparse.diags_array(1 / np.where(square > 0, square, 1)) @ share
    near = _nearest(embedding(adata, model), model, concepts)
    joined = sparse.csc_array(own + near - near.multiply(share != 0))
    total = np.asarray(abs(joined).sum(axis=1)).ravel()
    shares = sparse.csc_array(sparse.diags_array(1 / np.where(total > 0, total, 1)) @ joined)
    return _standardised_expression(model, shares)


def _nearest(latents: list[np.ndarray], model: GeneVAE, concepts: list[Concept]) -> sparse.csc_array:
    """One at each concept's nearest genes, (K, G)."""
    genes = np.vstack(
        [
            _highest_scoring(model, score_genes(latents, concepts[first : first + CONCEPTS_AT_ONCE]), N_NEAREST)
            for first in range(0, len(concepts), CONCEPTS_AT_ONCE)
        ]
    )
    where = (np.repeat(np.arange(len(concepts)), genes.shape[1]), genes.ravel())
    return sparse.csc_array((np.ones(genes.size), where), shape=(len(concepts), len(latents[0])))


def _standardised_expression(model: GeneVAE, share: sparse.csc_array) -> np.ndarray:
    """Standardised expression averaged by shares (K, G), within each section; zero at spots without a count."""
    maps = np.zeros((share.shape[0], len(model.spots)))
    depth = np.asarray(model.reader.depth, dtype=np.float64)
    parts = counted_spots(model)
    for block in _gene_blocks(share, len(model.spots)):
        profiles = model.reader.profiles(block).astype(np.float64)
        for own in parts:
            part = np.log1p(profiles[:, own] * (SCALED_TO * np.median(depth[own]) / depth[own]))
            part -= part.mean(axis=1, keepdims=True)
            spread = part.std(axis=1, keepdims=True)
            profiles[:, own] = part / np.where(spread > 0, spread, 1)
        maps += share[:, block] @ profiles
    return maps


def _gene_shares(model: GeneVAE, concepts: list[Concept]) -> sparse.csc_array:
    """Weights (K, G) of the concepts' genes that have counts.

    Absolute weights of a concept sum to one; the row of a concept without genes is empty.
    """
    totals = model.reader.gene_totals
    rows, columns, weights = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for k, concept in enumerate(concepts):
        if len(concept.genes):
            genes, w = gene_rows(concept, model.gene_names)
            seen = totals[genes] > 0
            rows.append(np.full(int(seen.sum()), k))
            columns.append(genes[seen])
            weights.append(w[seen] / max(float(np.abs(w[seen]).sum()), 1e-12))
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csc_array((np.concatenate(weights), where), shape=(len(concepts), len(totals)))


def _gene_blocks(share: sparse.csc_array, n_spots: int) -> list[np.ndarray]:
    """Genes that any concept uses, in blocks."""
    used = np.flatnonzero(np.diff(share.indptr))
    step = _at_once(n_spots)
    return [used[start : start + step] for start in range(0, len(used), step)]


# ---- Sections


def standardise_sections(model: GeneVAE, maps: np.ndarray) -> np.ndarray:
    """Maps (S', K) brought to mean 0 and standard deviation 1 over the spots, of several sections over those of each.

    What the model knows of a gene is where in its section it is found, not how much of it one section has beside
    another, so maps compare the spots of a section. Spots without a count, of which a model may be loaded on some, are
    ignored and stay at the mean.
    """
    out = np.zeros(maps.shape, dtype=np.float64)
    for own in counted_spots(model):
        out[own] = standardise(maps[own])
    return out


def counted_spots(model: GeneVAE) -> list[np.ndarray]:
    """Spots with counts among the model's, of each part of the tissue."""
    every = np.arange(len(model.spots))
    seen = np.asarray(model.reader.depth) > 0
    return [every[own][seen[own]] for _, own in model.parts()]
