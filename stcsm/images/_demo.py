"""``stcsm faces demo``: the whole analysis on simulated faces, whose attributes and pixels are known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table
from tqdm.auto import tqdm

from stcsm.attribution import METHODS, method_class
from stcsm.datasets import simulated_faces
from stcsm.images._concepts import STEPS, concept_scores, concept_vectors, encode, performance, traverse
from stcsm.images._figures import clip_map, plot_histograms, plot_saliency, plot_traversal
from stcsm.images._run import draw, patches, quiet_libraries, results_folder
from stcsm.images._saliency import DEFAULT_METHOD, SaliencyMaps, mask_agreement, mean_difference, pixel_maps, saliency
from stcsm.images.data import CelebA, ImageSet
from stcsm.images.model import Architecture, ImageVAE

__all__ = ["DEMO", "map_agreement", "run_demo"]

#: Trains in two minutes on two cores. ELU: its gradient is zero nowhere.
DEMO = Architecture(32, (16, 32, 64), (4, 4, 4), 3, 256, 64, "elu", 2e-3, -2.0)
N_FACES, EPOCHS, BATCH, RATE = 4000, 20, 64, 2e-3
N_JUDGED = 80  # held-out images on which maps are evaluated; about half have each attribute
ESTIMATOR = "cav"
BASELINE = "|mean with - mean without|"
RESULTS = (
    "faces/", "training/", "concept_vectors.csv", "performance.csv", "maps.csv", "histograms.png", "saliency.png",
    "overlay.png", "methods.png", "traversal.png",
)  # fmt: skip


def run_demo(
    out: Path, *, seed: int, workers: int, quiet: bool, n: int = N_FACES, epochs: int = EPOCHS, n_judged: int = N_JUDGED
) -> None:
    """Simulate faces, train, compute concepts and maps, and compare scores and maps with the truth."""
    started = time.perf_counter()
    with quiet_libraries(quiet) as console, results_folder(out, RESULTS) as scratch:
        simulated_faces(scratch / "faces", n, seed=seed, progress=not quiet)
        data = CelebA(scratch / "faces", size=DEMO.size).load(workers=workers, progress=not quiet)
        train, test = data.part("train"), data.part("test")
        model = ImageVAE(DEMO, seed=seed)
        model.fit(
            train, scratch / "training", validation=data.part("valid"), max_epochs=epochs, batch_size=BATCH, lr=RATE,
            seed=seed, accelerator="cpu", progress=not quiet,
        )  # fmt: skip
        z, z_test = (encode(model, part, progress=not quiet) for part in (train, test))
        scored = {}
        for estimator in ("contrast", ESTIMATOR):
            vectors = concept_vectors(z, train.attributes, estimator=estimator)
            scores = concept_scores(z_test, vectors, test.names)
            scored[estimator] = performance(scores, test.attributes, concept_scores(z, vectors), train.attributes)
        judged = np.arange(min(n_judged, len(test)))
        agreement, examples = map_agreement(
            model, train, test.take(judged), vectors, z_test[judged], progress=not quiet
        )
        vectors.to_csv(scratch / "concept_vectors.csv")
        pd.concat(scored, names=["estimator"]).to_csv(scratch / "performance.csv")
        agreement.to_csv(scratch / "maps.csv", index=False)
        draw(scratch / "histograms.png", lambda: plot_histograms(scores, test.attributes))
        best = saliency(model, test, vectors, n=4, latents=z_test, progress=False)
        draw(scratch / "saliency.png", lambda: plot_saliency(best))
        draw(scratch / "overlay.png", lambda: plot_saliency(best, overlay=True))
        draw(scratch / "methods.png", lambda: _plot_methods(examples))
        draw(scratch / "traversal.png", lambda: _plot_traversal(model, z_test, test, vectors))
    console.print(_scores_table(scored))
    for key, title in (("auroc", "AUROC over pixels"), ("top", "share of the top 5% of pixels on the attribute")):
        console.print(_maps_table(agreement, key, f"Agreement of maps with the attribute's pixels: {title}"))
    console.print(f"{', '.join(RESULTS)} in {out} ({time.perf_counter() - started:.0f} s)", highlight=False)


def map_agreement(
    model: ImageVAE,
    train: ImageSet,
    judged: ImageSet,
    vectors: pd.DataFrame,
    latents: NDArray[np.float32],
    methods: Sequence[str] = METHODS,
    progress: bool = True,
) -> tuple[pd.DataFrame, dict[str, SaliencyMaps]]:
    """Compare the maps of every method with the masks, in the images that have the attribute.

    Parameters
    ----------
    model
        A trained model.
    train
        Its training images: their mean is the baseline of methods that need one, and their `mean_difference` is the
        map that every method is compared with.
    judged
        Images with masks.
    vectors
        Concept vectors.
    latents
        Of ``judged``.
    methods
        Names of methods.
    progress
        Whether to show progress.

    Returns
    -------
    One row per method and attribute: means over images of the results of `mask_agreement`; and the maps of each method
    for all of ``judged``.
    """
    pixels = train.stack(np.arange(len(train))).numpy()
    mean = (pixels.mean(axis=0) / 255).astype(np.float32)
    masks = {name: judged.masks(name) for name in vectors.index}
    rows, maps = [], {}
    for name in vectors.index:
        plain = pixel_maps(mean_difference(pixels, train.attributes[name]))
        rows.append({"method": BASELINE, "attribute": name, **_mean(mask_agreement(plain, masks[name]))})
    for method in tqdm(methods, desc="explain", unit="method", disable=not progress):
        params = patches(method, judged.size)
        if not params and "baseline" in method_class(method).parameters():
            params = {"baseline": mean}
        found = saliency(
            model,
            judged,
            vectors,
            rows=np.arange(len(judged)),
            method=method,
            latents=latents,
            progress=False,
            **params,
        )
        maps[method] = found
        for name, one in zip(vectors.index, found.by_pixel(), strict=True):
            has = judged.attributes[name].to_numpy()
            rows.append({"method": method, "attribute": name, **_mean(mask_agreement(one[has], masks[name][has]))})
    return pd.DataFrame(rows), maps


def _mean(found: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    known = np.isfinite(found["auroc"])
    return {key: float(values[known].mean()) for key, values in found.items()} | {"n": int(known.sum())}


def _scores_table(found: dict[str, pd.DataFrame]) -> Table:
    shown = Table(title="Concept scores on held-out images (AUROC; 0.5 is chance)")
    for heading in ("attribute", *found, f"accuracy ({ESTIMATOR})", "always the larger class"):
        shown.add_column(heading, justify="left" if heading == "attribute" else "right")
    last = found[ESTIMATOR]
    for name in last.index:
        values = [
            *(t.loc[name, "auroc"] for t in found.values()),
            last.loc[name, "accuracy"],
            last.loc[name, "majority"],
        ]
        shown.add_row(str(name), *(f"{v:.3f}" for v in values))
    return shown


def _maps_table(found: pd.DataFrame, key: str, title: str) -> Table:
    wide = found.pivot(index="method", columns="attribute", values=key)
    shown = Table(title=title)
    for heading in ("map", *found["attribute"].unique()):
        shown.add_column(heading, justify="left" if heading == "map" else "right")
    for method in found["method"].unique():
        row = [f"{wide.loc[method, name]:.3f}" for name in found["attribute"].unique()]
        shown.add_row(f"{method} (default)" if method == DEFAULT_METHOD else method, *row)
    chance = found[found["method"] == BASELINE].set_index("attribute")["chance"]
    shown.add_row("chance", *(f"{0.5 if key == 'auroc' else chance[name]:.3f}" for name in found["attribute"].unique()))
    return shown


def _plot_methods(maps: dict[str, SaliencyMaps]) -> Figure:
    """One image per attribute: the face, then the map of every method."""
    first = next(iter(maps.values()))
    picks = np.argmax(first.scores, axis=1)
    down, across = len(first.concepts), len(maps) + 1
    figure, axes = plt.subplots(down, across, figsize=(0.8 * across + 0.8, 0.8 * down + 0.8), squeeze=False)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    shown = {method: one.by_pixel() for method, one in maps.items()}
    for k, (row, pick) in enumerate(zip(axes, picks, strict=True)):
        row[0].imshow(first.pixels[k, pick], interpolation="nearest")
        row[0].set_ylabel(first.concepts[k].replace("_", "\n"), fontsize=7, rotation=0, ha="right", va="center")
        for axis, (method, values) in zip(row[1:], shown.items(), strict=True):
            axis.imshow(clip_map(values[k, pick]), cmap="inferno", vmin=0, vmax=1, interpolation="nearest")
            if k == 0:
                axis.set_title(method.replace("_", "\n"), fontsize=6)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    return figure


def _plot_traversal(model: ImageVAE, latents: NDArray[np.float32], test: ImageSet, vectors: pd.DataFrame) -> Figure:
    """Start from a face with as few attributes as possible."""
    start = latents[int(test.attributes.sum(axis=1).to_numpy().argmin())]
    contrast = concept_vectors(latents, test.attributes)
    # CAV vectors have no scale: a step is the difference of the class means projected on the vector
    unit = vectors.to_numpy() / np.linalg.norm(vectors.to_numpy(), axis=1, keepdims=True)
    step = unit * (unit * contrast.to_numpy()).sum(axis=1, keepdims=True)
    faces = traverse(model, start, pd.DataFrame(step, index=vectors.index))
    return plot_traversal(faces, list(vectors.index), STEPS)
