"""What ``stcsm faces crop | train | concepts | saliency`` do, from files to files."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stcsm.attribution import METHODS

from ._architecture import PRESETS
from ._celeba import CelebA
from ._concepts import both_classes, concept_scores, concept_vectors, performance
from ._crop import crop_faces
from ._encode import encode
from ._figures import plot_histograms, plot_saliency
from ._results import results_folder
from ._saliency import saliency
from ._traversal import STEPS, plot_traversal, traverse
from ._vae import ImageVAE

__all__ = ["draw", "open_data", "quiet_libraries", "run_concepts", "run_crop", "run_saliency", "run_train"]

VECTORS, SCORES, TOLD, LATENTS = "concept_vectors.csv", "concept_scores.csv", "performance.csv", "latents.npy"
ORIGIN = "concepts.json"
SHOWN = 10  # attributes in the traversal: those whose score tells best


def open_data(root: Path, size: int, crop: bool = True, **tables: Any) -> CelebA:
    """Open a copy of CelebA, a folder that ``crop`` wrote, or (with ``crop=False``) anyone's pictures with a table."""
    return CelebA(root, size=size, crop=crop, resample="nearest" if crop else "bilinear", **tables)


def run_crop(root: Path, out: Path, *, workers: int, quality: int, quiet: bool, **tables: Any) -> None:
    """Crop every face and write it to disk; go on where an earlier call stopped."""
    with quiet_libraries(quiet) as console:
        data = open_data(root, 128, **tables)
        console.print(f"{data.inventory}.", highlight=False)
        report = crop_faces(data, out, workers=workers, quality=quality, progress=not quiet)
        console.print(f"{report}.", highlight=False)


def run_train(
    root: Path, out: Path, *, size: int, seed: int, workers: int, quiet: bool, in_memory: bool, crop: bool,
    tables: dict[str, Any], **settings: Any,
) -> None:  # fmt: skip
    """Train an `ImageVAE`; the same call goes on where it was stopped."""
    if size not in PRESETS:
        raise ValueError(f"Expected --size to be one of {', '.join(map(str, PRESETS))}, found {size}")
    with quiet_libraries(quiet) as console:
        data: Any = open_data(root, size, crop, **tables)
        console.print(f"{data.inventory}.", highlight=False)
        if in_memory:
            data = data.load(workers=workers, progress=not quiet)
        train, valid = data, None
        if data.partition is not None:
            train = data.part("train")
            valid = data.part("valid") if (data.partition == "valid").any() else None
        model = ImageVAE.preset(size, seed=seed)
        console.print(f"{model.n_parameters():,} parameters, {len(train)} pictures", highlight=False)
        history = model.fit(
            train, out, validation=valid, seed=seed, workers=0 if in_memory else workers, progress=not quiet, **settings
        )
        console.print(history.iloc[-1].to_string(), highlight=False)
        console.print(f"model, grids, log in {out}", highlight=False)


def run_concepts(
    root: Path, model_folder: Path, out: Path, *, attributes: Sequence[str], estimator: str, n: int | None,
    batch_size: int, workers: int, accelerator: str, quiet: bool, crop: bool, tables: dict[str, Any],
) -> None:  # fmt: skip
    """Encode all pictures, make a concept of every attribute and judge its score on pictures held out."""
    names = [VECTORS, SCORES, TOLD, LATENTS, ORIGIN, "histograms.png", "traversal.png"]
    with quiet_libraries(quiet) as console, results_folder(out, names) as scratch:
        model = load_model(model_folder, accelerator)
        data = open_data(root, model.architecture.size, crop, **tables)
        console.print(f"{data.inventory}.", highlight=False)
        train, test = split(data.partition, len(data))
        chosen = choose(data.attributes[train], attributes, console)
        latents = np.lib.format.open_memmap(
            scratch / LATENTS, mode="w+", dtype=np.float32, shape=(len(data), model.architecture.latent)
        )
        encode(model, data, batch_size=batch_size, workers=workers, out=latents, progress=not quiet)
        has = data.attributes[chosen]
        vectors = concept_vectors(latents[train], has[train], n=n, estimator=estimator)
        scores = concept_scores(latents, vectors, data.names)
        told = performance(scores[test], has[test], scores[train], has[train])
        vectors.to_csv(scratch / VECTORS)
        scores.to_csv(scratch / SCORES, index_label="picture", float_format="%.6g")
        told.to_csv(scratch / TOLD)
        origin = {"model": fingerprint(model_folder), "estimator": estimator, "n": n, "pictures": len(data)}
        (scratch / ORIGIN).write_text(json.dumps(origin, indent=1), encoding="utf-8")
        draw(scratch / "histograms.png", lambda: plot_histograms(scores[test], has[test]))
        best = told["auroc"].sort_values(ascending=False, kind="stable").index[:SHOWN]
        faces = traverse(model, latents[train].mean(axis=0), vectors.loc[best])
        draw(scratch / "traversal.png", lambda: plot_traversal(faces, list(best), STEPS))
        latents.flush()
    console.print(table_of(told, "Concept scores, on pictures held out"))
    console.print(f"{', '.join(names)} in {out}", highlight=False)


def run_saliency(
    root: Path, model_folder: Path, concepts_folder: Path, out: Path, *, attributes: Sequence[str], method: str, n: int,
    pictures: Sequence[str], part: str, batch_size: int, workers: int, accelerator: str, quiet: bool, crop: bool,
    tables: dict[str, Any],
) -> None:  # fmt: skip
    """Explain the top-scoring pictures of each concept, or given ones."""
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
    names.append("pictures.csv")
    with quiet_libraries(quiet) as console, results_folder(out, names) as scratch:
        model = load_model(model_folder, accelerator)
        vectors = read_vectors(concepts_folder, model_folder)
        unknown = [a for a in attributes if a not in vectors.index]
        if unknown:
            raise ValueError(f"Expected attributes among {', '.join(vectors.index)}, found {unknown[0]!r}")
        vectors = vectors.loc[list(attributes)] if attributes else vectors
        data: Any = open_data(root, model.architecture.size, crop, **tables)
        rows, latents = None, None
        if pictures:
            rows = data.names.get_indexer(list(pictures))
            if (rows < 0).any():
                lost = list(pictures)[int(np.argmin(rows))]
                raise ValueError(f"Expected names of pictures such as {data.names[0]}, found {lost!r}")
        else:
            latents = stored_latents(concepts_folder, data.names)
            if latents is None:
                latents = encode(model, data, batch_size=256, workers=workers, progress=not quiet)
            if part != "all" and data.partition is not None:
                chosen = (data.partition == part).to_numpy()
                data, latents = data.part(part), latents[chosen]
        for m in methods:
            params = occlusion_window(model.architecture.size) if m == "occlusion" else {}
            maps = saliency(
                model, data, vectors, rows=rows, n=n, method=m, latents=latents, batch_size=batch_size,
                progress=not quiet, **params,
            )  # fmt: skip
            maps.save(scratch / f"maps_{m}.npz")
            draw(scratch / f"saliency_{m}.png", lambda maps=maps: plot_saliency(maps))
            draw(scratch / f"overlay_{m}.png", lambda maps=maps: plot_saliency(maps, overlay=True))
        places = [
            (c, i + 1, maps.names[k, i], maps.scores[k, i])
            for k, c in enumerate(maps.concepts)
            for i in range(maps.names.shape[1])
        ]
        pd.DataFrame(places, columns=["concept", "rank", "picture", "score"]).to_csv(
            scratch / "pictures.csv", index=False
        )
    console.print(f"{', '.join(names)} in {out}", highlight=False)


def occlusion_window(size: int) -> dict[str, Any]:
    """Patches of an eighth of the width, all channels at once, half a patch apart."""
    return {"window": (3, size // 8, size // 8), "step": (3, size // 16, size // 16)}


def load_model(folder: Path, accelerator: str) -> ImageVAE:
    """Read a model, given its folder or that of the training."""
    model = ImageVAE.load(model_place(folder))
    if accelerator == "auto":
        import torch

        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to({"gpu": "cuda"}.get(accelerator, accelerator))


def model_place(folder: Path) -> Path:
    """Where the model lies: in the folder itself, or in ``model`` below it, as a training leaves it."""
    return folder / "model" if (folder / "model").is_dir() and not (folder / "model.json").is_file() else folder


def fingerprint(model_folder: Path) -> str:
    """Hash of a model's weights, by which vectors and latents know whose they are."""
    with (model_place(model_folder) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_vectors(folder: Path, model_folder: Path) -> pd.DataFrame:
    """Read what ``concepts`` wrote, and make sure that it belongs to the model."""
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
    if origin.get("model") != fingerprint(model_folder):
        raise ValueError(
            f"Expected concepts of the model in {model_folder}, found another's in {folder}; run stcsm faces concepts "
            f"again"
        )
    return vectors


def stored_latents(folder: Path, names: pd.Index) -> NDArray[np.float32] | None:
    """Latents that ``concepts`` wrote, if they are those of the same pictures."""
    if not (folder / LATENTS).is_file() or not (folder / SCORES).is_file():
        return None
    known = pd.read_csv(folder / SCORES, usecols=["picture"], dtype=str)["picture"]
    if len(known) != len(names) or not (known.to_numpy() == names.to_numpy()).all():
        return None
    return np.load(folder / LATENTS, mmap_mode="r", allow_pickle=False)


def split(partition: pd.Series | None, n: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which pictures make the vectors, and which judge them: as partitioned, or a fifth drawn at random."""
    if partition is not None and (partition == "train").any() and (partition == "test").any():
        return (partition == "train").to_numpy(), (partition == "test").to_numpy()
    test = np.zeros(n, dtype=bool)
    test[np.random.default_rng(0).permutation(n)[: max(1, n // 5)]] = True
    return ~test, test


def choose(has: pd.DataFrame, wanted: Sequence[str], console: Console) -> list[str]:
    """Attributes that were asked for, or all that some training pictures have and others have not."""
    unknown = [name for name in wanted if name not in has]
    if unknown:
        raise ValueError(f"Expected attributes among {', '.join(map(str, has))}, found {unknown[0]!r}")
    possible = both_classes(has)
    if wanted:
        return list(wanted)
    left_out = [name for name in has if name not in possible]
    if left_out:
        console.print(
            f"left out, since all pictures or none have them: {', '.join(map(str, left_out))}", highlight=False
        )
    if not possible:
        raise ValueError("Expected an attribute that some pictures have and others have not, found none")
    return possible


def table_of(told: pd.DataFrame, title: str) -> Table:
    """Tell `performance` as a table."""
    shown = Table(title=title)
    for heading in ("attribute", "AUROC", "accuracy", "always the larger class", "with", "without"):
        shown.add_column(heading, justify="left" if heading == "attribute" else "right")
    for name, row in told.sort_values("auroc", ascending=False, kind="stable").iterrows():
        numbers = [f"{row[key]:.3f}" for key in ("auroc", "accuracy", "majority")]
        shown.add_row(str(name), *numbers, f"{row['n_with']:.0f}", f"{row['n_without']:.0f}")
    return shown


def draw(path: Path, make: Any, dpi: int = 200) -> None:
    """Make a figure without a display and write it."""
    backend = mpl.get_backend()
    mpl.use("agg")
    try:
        figure: Figure = make()
        figure.savefig(path, dpi=dpi)
        plt.close(figure)
    finally:
        mpl.use(backend)


@contextmanager
def quiet_libraries(quiet: bool) -> Iterator[Console]:
    """Of other libraries' notices, only warnings are for the person at the terminal, one line each."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

    def one_line(message: Warning | str, *_: Any, **__: Any) -> None:
        Console(stderr=True, soft_wrap=True).print(f"stcsm: warning: {' '.join(str(message).split())}", highlight=False)

    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning, SyntaxWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = one_line
        yield Console(quiet=quiet, soft_wrap=True)
