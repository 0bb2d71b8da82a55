"""What methods are judged on. A new task is a function and a line in TASKS."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import stcsm
from benchmarks._recovery.protocol import thin
from stcsm.models import GeneVAE

SAMPLES = 8
"""Samples a concept: those that score highest on it."""
AVERAGED = 100
"""Samples that the mean map is over."""
STRANGERS = 20


@dataclass(frozen=True)
class Task:
    """An encoder with concepts, the samples to explain, and what is known of the truth.

    ``found(own, mean)`` is the AUROC of maps against the truth, from each sample's own maps (N, K, ...) and from the
    mean maps (K, ...).
    """

    name: str
    about: str
    encoder: nn.Module
    inputs: Tensor
    averaged: Tensor
    concepts: Tensor
    strangers: Tensor
    found: Callable[[np.ndarray, np.ndarray], float]
    features: np.ndarray | None = None
    params: dict[str, dict[str, Any]] = field(default_factory=dict)


def _read(path: str, labels: str) -> tuple[ad.AnnData, str]:
    """A tissue with labels: a CSV of them, or the column of ``.obs`` that holds them."""
    adata = stcsm.io.read(path)
    if labels not in adata.obs:
        stcsm.io.add_labels(adata, labels, "layer", overwrite=True)
        labels = "layer"
    return adata, labels


def tissue(name: str, path: str, labels: str, args: Namespace) -> Task:
    """Layers of a tissue: markers from one half of the counts, the default model trained on the other."""
    whole, key = _read(path, labels)
    counts = sparse.csr_matrix(whole.X)
    a, b = thin(counts, 0.5, np.random.default_rng(args.seed))
    text = whole.obs[key].astype(object)
    first = ad.AnnData(a, obs=whole.obs[[]].copy(), var=whole.var[[]].copy())
    first.obs["layer"] = text
    first.obsm["spatial"] = np.asarray(whole.obsm["spatial"], dtype=float)
    GeneVAE.setup_anndata(first)
    sets = stcsm.tl.match_gene_sets(first, groupby="layer").genes
    half = ad.AnnData(b, obs=first.obs.copy(), var=first.var.copy(), obsm={"spatial": first.obsm["spatial"]})
    GeneVAE.setup_anndata(half)
    model = GeneVAE(half, seed=args.seed)
    model.train(progress=False)
    seen = set(half.var_names[model.reader.gene_totals > 0])
    stcsm.tl.concepts(half, model, genes={n: [g for g in genes if g in seen] for n, genes in sets.items()})
    truth = half.obs["layer"].to_numpy(dtype=object)[model.spots]
    about = f"{half.n_obs} spots, {half.n_vars} genes, {len(sets)} layers; NB gene VAE, one smooth activation"
    return _of_model(name, about, half, model, truth, None, args)


def paper(args: Namespace) -> Task:
    """The published model (five ReLU layers) with its trained weights, concepts of three seed genes."""
    adata, key = _read(args.bulb, args.bulb_labels)
    model = GeneVAE.published(adata)
    model.load_published_weights(args.weights)
    stcsm.tl.published_concepts(adata, model, ["Penk", "Kctd12"])
    labels = adata.obs[key].astype(str)
    layers = {"Penk": "Granul", "Kctd12": "Nerve"}
    names = {gene: next(x for x in labels.unique() if part in x) for gene, part in layers.items()}
    about = "published convolutional model, five ReLU layers, on the olfactory bulb"
    return _of_model("paper", about, adata, model, adata.obs[key].to_numpy(dtype=object)[model.spots], names, args)


def _of_model(
    name: str, about: str, adata: ad.AnnData, model: GeneVAE, truth: np.ndarray, layer_of: Any, args: Namespace
) -> Task:
    rng = np.random.default_rng(args.seed)
    records = [adata.uns["stcsm"]["concepts"][key] for key in adata.varm["concept_score"]]
    vectors = np.stack([record["vectors"][0] for record in records])
    z = model.get_latent_representation()
    scores = z[model.trained_genes] @ vectors.T
    nearest = np.unique(np.argsort(-scores, axis=0)[:SAMPLES])
    averaged = np.sort(rng.choice(model.trained_genes, min(AVERAGED, len(model.trained_genes)), replace=False))
    strange = z[rng.choice(model.trained_genes, STRANGERS, replace=False)] - np.nanmean(z, axis=0)
    tensor = lambda v: torch.as_tensor(v, dtype=torch.float32)  # noqa: E731
    inputs, all_inputs = model.inputs(model.trained_genes[nearest]), model.inputs(averaged)
    known = np.array([isinstance(t, str) and bool(t.strip()) for t in truth])

    def found(own: np.ndarray, mean: np.ndarray) -> float:
        spots = model.maps_to_spots(mean)
        layers = [layer_of[r["label"]] if layer_of else r["label"] for r in records]
        return float(np.mean([roc_auc_score(truth[known] == x, m[known]) for x, m in zip(layers, spots, strict=True)]))

    params = {"occlusion": {"window": (1, 2, 2), "step": (1, 2, 2)}} if inputs.ndim == 4 else {}
    return Task(name, about, model.encoder, inputs, all_inputs, tensor(vectors), tensor(strange), found, None, params)


def faces(args: Namespace) -> Task:
    """Drawn faces with known masks, a VAE trained on them, the four local attributes."""
    from stcsm.datasets import simulated_faces
    from stcsm.evaluation import patches
    from stcsm.images import CelebA, ImageVAE, as_pixels, concept_vectors, encode

    names = ["Wearing_Hat", "Eyeglasses", "Beard", "Smiling"]
    owner = np.repeat(np.arange(len(names)), SAMPLES)
    with tempfile.TemporaryDirectory() as scratch:
        simulated_faces(Path(scratch) / "faces", n=args.faces, seed=args.seed, progress=False)
        files = CelebA(Path(scratch) / "faces", size=32)
        data = files.load(progress=False)
        rows = np.concatenate([np.flatnonzero(data.attributes[n].to_numpy())[-SAMPLES:] for n in names])
        masks = np.stack([files.masks(names[k], [r])[0] for k, r in zip(owner, rows, strict=True)])
    model = ImageVAE.preset(32, seed=args.seed)
    model.fit(data.part("train"), max_epochs=args.face_epochs, seed=args.seed, progress=False)
    z = encode(model, data, progress=False)
    vectors = concept_vectors(z, data.attributes[names]).to_numpy()
    rng = np.random.default_rng(args.seed)
    pixels = as_pixels(data.stack(rows))
    strange = z[rng.choice(len(z), STRANGERS, replace=False)] - z.mean(axis=0)

    def found(own: np.ndarray, mean: np.ndarray) -> float:
        areas = []
        for i, (k, mask) in enumerate(zip(owner, masks, strict=True)):
            if 0 < mask.sum() < mask.size:
                areas.append(roc_auc_score(mask.ravel(), np.abs(own[i, k].sum(axis=0)).ravel()))
        return float(np.mean(areas))

    return Task(
        "faces", f"{args.faces} drawn faces of 32 pixels, VAE of {args.face_epochs} epochs, {', '.join(names)}",
        model.eval().encoder, pixels, as_pixels(data.stack(np.arange(AVERAGED))),
        torch.as_tensor(vectors, dtype=torch.float32), torch.as_tensor(strange, dtype=torch.float32), found,
        patches((3, 32, 32), 2), {"occlusion": {"window": (3, 2, 2), "step": (3, 2, 2)}},
    )  # fmt: skip


TASKS: dict[str, tuple[tuple[str, ...], Callable[[Namespace], Task]]] = {
    "bulb": (("bulb", "bulb_labels"), lambda a: tissue("bulb", a.bulb, a.bulb_labels, a)),
    "cortex": (("cortex", "cortex_labels"), lambda a: tissue("cortex", a.cortex, a.cortex_labels, a)),
    "paper": (("bulb", "bulb_labels", "weights"), paper),
    "faces": (("faces",), faces),
}
"""Name of a task, the options that it needs, and what makes it."""
