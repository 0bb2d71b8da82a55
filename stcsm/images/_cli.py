"""The command line ``stcsm faces``: options only; what a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

faces = typer.Typer(
    help="Face images: which pixels carry an attribute of CelebA, or of your own images.", no_args_is_help=True
)

Root = Annotated[
    Path, typer.Argument(help="A copy of CelebA (official archive or Kaggle), or the folder that crop wrote.")
]
Model = Annotated[Path, typer.Option("--model", help="Folder that train wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results; created if it does not exist.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that read images; 0 is this one.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Images per pass; it limits the memory.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed.")]
Accelerator = Annotated[str, typer.Option("--accelerator", help="auto, cpu or gpu.")]
Attribute = Annotated[
    list[str] | None, typer.Option("--attribute", help="An attribute; may be repeated. All by default.")
]
NoCrop = Annotated[bool, typer.Option("--no-crop", help="Use whole images: for a folder of your own images.")]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the images, if elsewhere.")]
Table = Annotated[
    Path | None, typer.Option("--attributes", help="Table of attributes, if elsewhere: image, then -1/1 or 0/1.")
]
Landmarks = Annotated[Path | None, typer.Option("--landmarks", help="Table of landmarks, if elsewhere.")]
Partition = Annotated[
    Path | None, typer.Option("--partition", help="Table of parts (0 train, 1 validation, 2 test), if elsewhere.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no report.")]


def _tables(
    images: Path | None, attributes: Path | None, landmarks: Path | None, partition: Path | None
) -> dict[str, Any]:
    return {"images": images, "attributes": attributes, "landmarks": landmarks, "partition": partition}


@faces.command()
def crop(
    root: Root,
    out: Out,
    workers: Workers = 0,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of the JPEG files.")] = 95,
    images: Images = None,
    attributes: Table = None,
    landmarks: Landmarks = None,
    partition: Partition = None,
    quiet: Quiet = False,
) -> None:
    """Crop every face by its landmarks and write it to disk; the same command resumes an interrupted run."""
    from stcsm.images._run import run_crop

    run_crop(
        root, out, workers=workers, quality=quality, quiet=quiet,
        **_tables(images, attributes, landmarks, partition),
    )  # fmt: skip


@faces.command()
def train(
    root: Root,
    out: Out,
    size: Annotated[
        int, typer.Option("--size", help="Pixels: 128 is the published network, 64 and 32 are smaller.")
    ] = 128,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Epochs.")] = 15,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps per epoch (published: 10000); one pass by default.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=2, help="Images per step, over all devices.")] = 20,
    lr: Annotated[float, typer.Option("--lr", help="Learning rate.")] = 1e-3,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after this many epochs without a lower validation loss."),
    ] = None,
    precision: Annotated[str, typer.Option("--precision", help="32-true, 16-mixed or bf16-mixed.")] = "32-true",
    accelerator: Accelerator = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Number of devices.")] = 1,
    strategy: Annotated[str, typer.Option("--strategy", help="auto, or ddp for several devices.")] = "auto",
    log: Annotated[str, typer.Option("--log", help="csv or tensorboard.")] = "csv",
    checkpoint_every: Annotated[
        int | None, typer.Option("--checkpoint-every", min=1, help="Steps between checkpoints within an epoch.")
    ] = None,
    in_memory: Annotated[
        bool, typer.Option("--in-memory", help="Read all images once and keep them in memory.")
    ] = False,
    seed: Seed = 0,
    workers: Workers = 0,
    no_crop: NoCrop = False,
    images: Images = None,
    attributes: Table = None,
    landmarks: Landmarks = None,
    partition: Partition = None,
    quiet: Quiet = False,
) -> None:
    """Train the autoencoder; the same command resumes an interrupted training."""
    from stcsm.images._run import run_train

    run_train(
        root, out, size=size, seed=seed, workers=workers, quiet=quiet, in_memory=in_memory, crop=not no_crop,
        tables=_tables(images, attributes, landmarks, partition), max_epochs=epochs, steps_per_epoch=steps,
        batch_size=batch_size, lr=lr, patience=patience, precision=precision, accelerator=accelerator, devices=devices,
        strategy=strategy, log=log, checkpoint_every=checkpoint_every,
    )  # fmt: skip


@faces.command()
def concepts(
    root: Root,
    model: Model,
    out: Out,
    attribute: Attribute = None,
    estimator: Annotated[
        str, typer.Option("--estimator", help="contrast (mean with - mean without, as published) or cav.")
    ] = "contrast",
    n: Annotated[
        int | None,
        typer.Option("-n", min=1, help="Use the first n images with and without (published: 500); all by default."),
    ] = None,
    batch_size: BatchSize = 256,
    workers: Workers = 0,
    accelerator: Accelerator = "auto",
    no_crop: NoCrop = False,
    images: Images = None,
    attributes: Table = None,
    landmarks: Landmarks = None,
    partition: Partition = None,
    quiet: Quiet = False,
) -> None:
    """Encode all images, compute a concept per attribute and evaluate its score on the test images."""
    from stcsm.images._run import run_concepts

    run_concepts(
        root, model, out, attributes=attribute or [], estimator=estimator, n=n, batch_size=batch_size, workers=workers,
        accelerator=accelerator, quiet=quiet, crop=not no_crop,
        tables=_tables(images, attributes, landmarks, partition),
    )  # fmt: skip


@faces.command()
def saliency(
    root: Root,
    model: Model,
    vectors: Annotated[Path, typer.Option("--concepts", help="Folder that concepts wrote.")],
    out: Out,
    attribute: Attribute = None,
    method: Annotated[
        str, typer.Option("--method", help="Attribution method (saliency, rectgrad, ...), or all.")
    ] = "saliency",
    n: Annotated[int, typer.Option("-n", min=1, help="Number of top-scoring images per attribute.")] = 4,
    image: Annotated[
        list[str] | None, typer.Option("--image", help="Explain this image (000001.jpg) instead; may be repeated.")
    ] = None,
    part: Annotated[
        str, typer.Option("--part", help="Select them from the train, valid or test images, or all.")
    ] = "all",
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    accelerator: Accelerator = "auto",
    no_crop: NoCrop = False,
    images: Images = None,
    attributes: Table = None,
    landmarks: Landmarks = None,
    partition: Partition = None,
    quiet: Quiet = False,
) -> None:
    """Map which pixels carry each attribute, in the top-scoring images or in given ones."""
    from stcsm.images._run import run_saliency

    run_saliency(
        root, model, vectors, out, attributes=attribute or [], method=method, n=n, images=image or [], part=part,
        batch_size=batch_size, workers=workers, accelerator=accelerator, quiet=quiet, crop=not no_crop,
        tables=_tables(images, attributes, landmarks, partition),
    )  # fmt: skip


@faces.command()
def demo(out: Out = Path("stcsm_faces_demo"), seed: Seed = 0, workers: Workers = 2, quiet: Quiet = False) -> None:
    """Run the whole analysis on simulated faces with known truth, and report how well scores and maps recover it."""
    from stcsm.images._demo import run_demo

    run_demo(out, seed=seed, workers=workers, quiet=quiet)
