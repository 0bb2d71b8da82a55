"""The steps of ``stcsm faces crop | train | concepts | saliency``, from files to files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stcsm._files import replace_all, scratch_folder
from stcsm.attribution import METHODS, method_class
from stcsm.images._concepts import STEPS, both_classes, concept_scores, concept_vectors, encode, performance, traverse
from stcsm.images._figures import plot_histograms, plot_saliency, plot_traversal
from stcsm.images._saliency import saliency
from stcsm.images.data import CelebA, ImageSet, crop_faces
from stcsm.images.model import PRESETS, ImageVAE

__all__ = [
    "draw",
    "patches",
    "quiet_libraries",
    "results_folder",
    "run_concepts",
    "run_crop",
    "run_saliency",
    "run_train",
]

VECTORS, SCORES, PERFORMANCE, LATENTS = "concept_vectors.csv", "concept_scores.csv", "performance.csv", "latents.npy"
ORIGIN = "concepts.json"
SHOWN = 10  # attributes in the traversal: those with the highest AUROC


def _open_data(root: Path, size: int, crop: bool = True, **tables: Any) -> CelebA:
    """Open a copy of CelebA, a folder that ``crop`` wrote, or (with ``crop=False``) a folder of your own images."""
    return CelebA(root, size=size, crop=crop, resample="nearest" if crop else "bilinear", **tables)


def run_crop(root: Path, out: Path, *, workers: int, quality: int, quiet: bool, **tables: Any) -> None:
    """Write the crop of every face to disk; the same call resumes an interrupted one."""
    with quiet_libraries(quiet) as console:
        data = _open_data(root, 128, **tables)
        console.print(f"{data.inventory}.", highlight=False)
        report = crop_faces(data, out, workers=workers, quality=quality, progress=not quiet)
        console.print(f"{report}.", highlight=False)


def run_train(
    root: Path, out: Path, *, size: int, seed: int, workers: int, quiet: bool, in_memory: bool, crop: bool,
    tables: dict[str, Any], **settings: Any,
) -> None:  # fmt: skip
    """Train an `ImageVAE`; the same call resumes an interrupted training."""
    if size not in PRESETS:
        raise ValueError(f"Expected --size to be one of {', '.join(map(str, PRESETS))}, found {size}")
    with quiet_libraries(quiet) as console:
        files = _open_data(root, size, crop, **tables)
        console.print(f"{files.inventory}.", highlight=False)
        data = files.load(workers=workers, progress=not quiet) if in_memory else files
        train: ImageSet = data
        valid: ImageSet | None = None
        if data.partition is not None:
            train = data.part("train")
            valid = data.part("valid") if (data.partition == "valid").any() else None
        model = ImageVAE.preset(size, seed=seed)
        console.print(f"{model.n_parameters():,} parameters, {len(train)} images", highlight=False)
        history = model.fit(
            train, out, validation=valid, seed=seed, workers=0 if in_memory else workers, progress=not quiet, **settings
        )
        console.print(history.iloc[-1].to_string(), highlight=False)
        console.print(f"model, grids, log in {out}", highlight=False)


def run_concepts(
    root: Path, model_folder: Path, out: Path, *, attributes: Sequence[str], estimator: str, n: int | None,
    batch_size: int, workers: int, accelerator: str, quiet: bool, crop: bool, tables: dict[str, Any],
) -> None:  # fmt: skip
    """Encode all images, compute a concept vector per attribute and evaluate its score on held-out images."""
    names = [VECTORS, SCORES, PERFORMANCE, LATENTS, ORIGIN, "histograms.png", "traversal.png"]
    with quiet_libraries(quiet) as console, results_folder(out, names) as scratch:
        model = _load_model(model_folder, accelerator)
        data = _open_data(root, model.architecture.size, crop, **tables)
        console.print(f"{data.inventory}.", highlight=False)
        train, test = _split(data.partition, len(data))
        chosen = _choose(data.attributes[train], attributes, console)
        latents = np.lib.format.open_memmap(
            scratch / LATENTS, mode="w+", dtype=np.float32, shape=(len(data), model.architecture.latent)
        )
        encode(model, data, batch_size=batch_size, workers=workers, out=latents, progress=not quiet)
        has = data.attributes[chosen]
        vectors = concept_vectors(latents[train], has[train], n=n, estimator=estimator)
        scores = concept_scores(latents, vectors, data.names)
        table = performance(scores[test], has[test], scores[train], has[train])
        vectors.to_csv(scratch / VECTORS)
        scores.to_csv(scratch / SCORES, index_label="image", float_format="%.6g")
        table.to_csv(scratch / PERFORMANCE)
        origin = {"model": _fingerprint(model_folder), "estimator": estimator, "n": n, "images": len(data)}
        (scratch / ORIGIN).write_text(json.dumps(origin, indent=1), encoding="utf-8")
        draw(scratch / "histograms.png", partial(plot_histograms, scores[test], has[test]))
        best = table["auroc"].sort_values(ascending=False, kind="stable").index[:SHOWN]
        faces = traverse(model, latents[train].mean(axis=0), vectors.loc[best])
        draw(scratch / "traversal.png", partial(plot_traversal, faces, list(best), STEPS))
        latents.flush()
    console.print(_table_of(table, "Concept scores on held-out images"))
    console.print(f"{', '.join(names)} in {out}", highlight=False)


def run_saliency(
    root: Path, model_folder: Path, concepts_folder: Path, out: Path, *, attributes: Sequence[str], method: str, n: int,
    images: Sequence[str], part: str, batch_size: int, workers: int, accelerator: str, quiet: bool, crop: bool,
    tables: dict[str, Any],
) -> None:  # fmt: skip
    """Compute saliency maps of the top-scoring images of each concept, or of given images."""
    if method not in (*METHODS, "all"):
        raise ValueError(f"Expected --method to be one of {', '.join(METHODS)} or all, found {method!r}")
    if part not in ("train", "valid", "test", "all"):
        raise ValueError(f"Expected --part to be train, valid, test or all, found {part!r}")
    methods = METHODS if method == "all" else (method,)
    names = [
        f"{kind}_{m}.{ending}"
        for m in methods
        for kind, ending in (("saliency", "png"), ("overlay", "png"), ("maps", "npz"))
    ]
    names.append("images.csv")
    with quiet_libraries(quiet) as console, results_folder(out, names) as scratch:
        model = _load_model(model_folder, accelerator)
        vectors = _read_vectors(concepts_folder, model_folder)
        unknown = [a for a in attributes if a not in vectors.index]
        if unknown:
            raise ValueError(f"Expected attributes among {', '.join(vectors.index)}, found {unknown[0]!r}")
        vectors = vectors.loc[list(attributes)] if attributes else vectors
        data: ImageSet = _open_data(root, model.architecture.size, crop, **tables)
        rows, latents = None, None
        if images:
            rows = data.names.get_indexer(pd.Index(list(images)))
            if (rows < 0).any():
                absent = list(images)[int(np.argmin(rows))]
                raise ValueError(f"Expected names of images such as {data.names[0]}, found {absent!r}")
        else:
            latents = _stored_latents(concepts_folder, data.names)
            if latents is None:
                latents = encode(model, data, batch_size=256, workers=workers, progress=not quiet)
            if part != "all" and data.partition is not None:
                chosen = (data.partition == part).to_numpy()
                data, latents = data.part(part), latents[chosen]
        for m in methods:
            maps = saliency(
                model, data, vectors, rows=rows, n=n, method=m, latents=latents, batch_size=batch_size,
                progress=not quiet, **patches(m, model.architecture.size),
            )  # fmt: skip
            maps.save(scratch / f"maps_{m}.npz")
            draw(scratch / f"saliency_{m}.png", partial(plot_saliency, maps))
            draw(scratch / f"overlay_{m}.png", partial(plot_saliency, maps, overlay=True))
        shown = [
            (c, i + 1, maps.names[k, i], maps.scores[k, i])
            for k, c in enumerate(maps.concepts)
            for i in range(maps.names.shape[1])
        ]
        pd.DataFrame(shown, columns=["concept", "rank", "image", "score"]).to_csv(scratch / "images.csv", index=False)
    console.print(f"{', '.join(names)} in {out}", highlight=False)


def patches(method: str, size: int) -> dict[str, Any]:
    """Parameters of a method that covers windows: an eighth of the width, all channels, half a window apart."""
    if "window" not in method_class(method).parameters():
        return {}
    return {"window": (3, size // 8, size // 8), "step": (3, size // 16, size // 16)}


def _load_model(folder: Path, accelerator: str) -> ImageVAE:
    """Read a model from its folder or from that of its training."""
    model = ImageVAE.load(_model_folder(folder))
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to({"gpu": "cuda"}.get(accelerator, accelerator))


def _model_folder(folder: Path) -> Path:
    """The folder itself, or ``model`` in it, where a training writes the model."""
    return folder / "model" if (folder / "model").is_dir() and not (folder / "model.json").is_file() else folder


def _fingerprint(model_folder: Path) -> str:
    """Hash of a model's weights, which is stored with its vectors and latents."""
    with (_model_folder(model_folder) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_vectors(folder: Path, model_folder: Path) -> pd.DataFrame:
    """Read what ``concepts`` wrote, and check that it belongs to the model."""
    for name in (VECTORS, ORIGIN):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"Expected {name} in {folder}, found none; run stcsm faces concepts first")
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        vectors = pd.read_csv(folder / VECTORS, index_col="attribute")
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(
            f"Expected the results of stcsm faces concepts in {folder}, found a damaged file: {error}"
        ) from error
    if origin.get("model") != _fingerprint(model_folder):
        raise ValueError(
            f"Expected concepts of the model in {model_folder}, found those of another model in "
            f"{folder}; run stcsm faces concepts again"
        )
    return vectors


def _stored_latents(folder: Path, names: pd.Index) -> NDArray[np.float32] | None:
    """Latents that ``concepts`` wrote, if they are those of the same images."""
    if not (folder / LATENTS).is_file() or not (folder / SCORES).is_file():
        return None
    known = pd.read_csv(folder / SCORES, usecols=["image"], dtype=str)["image"]
    if len(known) != len(names) or not (known.to_numpy() == names.to_numpy()).all():
        return None
    return np.load(folder / LATENTS, mmap_mode="r", allow_pickle=False)


def _split(partition: pd.Series | None, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Images to compute vectors from, and images to evaluate them on: as partitioned, or a random fifth."""
    if partition is not None and (partition == "train").any() and (partition == "test").any():
        return (partition == "train").to_numpy(), (partition == "test").to_numpy()
    test = np.zeros(n, dtype=bool)
    test[np.random.default_rng(0).permutation(n)[: max(1, n // 5)]] = True
    return ~test, test


def _choose(has: pd.DataFrame, wanted: Sequence[str], console: Console) -> list[str]:
    """Requested attributes, or all that some training images have and others do not."""
    unknown = [name for name in wanted if name not in has]
    if unknown:
        raise ValueError(f"Expected attributes among {', '.join(map(str, has))}, found {unknown[0]!r}")
    possible = both_classes(has)
    if wanted:
        return list(wanted)
    excluded = [name for name in has if name not in possible]
    if excluded:
        console.print(f"excluded, since all images or none have them: {', '.join(map(str, excluded))}", highlight=False)
    if not possible:
        raise ValueError("Expected an attribute that some images have and others do not, found none")
    return possible


def _table_of(found: pd.DataFrame, title: str) -> Table:
    """Format the result of `performance`."""
    shown = Table(title=title)
    for heading in ("attribute", "AUROC", "accuracy", "always the larger class", "with", "without"):
        shown.add_column(heading, justify="left" if heading == "attribute" else "right")
    for name, row in found.sort_values("auroc", ascending=False, kind="stable").iterrows():
        numbers = [f"{row[key]:.3f}" for key in ("auroc", "accuracy", "majority")]
        shown.add_row(str(name), *numbers, f"{row['n_with']:.0f}", f"{row['n_without']:.0f}")
    return shown


def draw(path: Path, make: Callable[[], Figure], dpi: int = 200) -> None:
    """Create a figure without a display and write it."""
    backend = mpl.get_backend()
    mpl.use("agg")
    try:
        figure = make()
        figure.savefig(path, dpi=dpi)
        plt.close(figure)
    finally:
        mpl.use(backend)


@contextmanager
def quiet_libraries(quiet: bool) -> Iterator[Console]:
    """Print only warnings of other libraries."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
            warnings.simplefilter("ignore", kind)
        yield Console(quiet=quiet, soft_wrap=True)


@contextmanager
def results_folder(out: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a scratch folder for results, and move them into ``out`` when the block ends without an error.

    Results of an earlier run with the same names are replaced; other files in ``out`` stay. After an error ``out`` is
    unchanged.

    Parameters
    ----------
    out
        Folder for the results; created if it does not exist.
    names
        Names of the results: files, or folders with a trailing slash.

    Raises
    ------
    FileExistsError
        If ``out`` is a file, or contains a folder with the name of a resulting file or the reverse.
    PermissionError
        If ``out`` is not writable.
    """
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"Expected a folder for the results, found a file: {out}")
    nearest = next(p for p in (out, *out.resolve().parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        raise PermissionError(f"Expected a folder that can be written to, found one that cannot: {nearest}")
    for name in names:
        path, is_folder = out / name, name.endswith("/")
        if path.exists() and path.is_dir() != is_folder:
            found = "a file" if is_folder else "a folder"
            raise FileExistsError(
                f"Expected room for {name} in {out}, found {found} of that name; choose another --out"
            )
    created = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    results = [name.rstrip("/") for name in names]
    try:
        with scratch_folder(out / f".stcsm-{results[0]}") as scratch:
            yield scratch
            replace_all(results, scratch, out)
    finally:
        if created and not any(out.iterdir()):
            out.rmdir()
