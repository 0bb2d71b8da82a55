"""The variational autoencoder of face images: create it, train it, save it, load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stcsm._files import read_model, write_model
from stcsm.images.data import ImageSet
from stcsm.images.model._network import PRESETS, Architecture, Network

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ImageVAE"]


class ImageVAE(Network):
    """Variational autoencoder of square RGB images (Brocki & Chung 2019, arXiv 1910.13140).

    The encoder has convolutions that halve the image, each followed by its activation and batch normalisation, a dense
    layer and two heads; the decoder mirrors it. Padding, batch normalisation and initial weights are TensorFlow's, as
    published.

    Parameters
    ----------
    architecture
        Its sizes; by default the published one, 128 x 128 pixels, 43,405,347 parameters.
    seed
        Of the initial weights.

    Attributes
    ----------
    architecture
        As given.
    """

    def __init__(self, architecture: Architecture | None = None, *, seed: int = 0) -> None:
        super().__init__(Architecture() if architecture is None else architecture, seed)

    @classmethod
    def preset(cls, size: int = 128, *, seed: int = 0) -> ImageVAE:
        """Return the model for images of a size: 128 (published), 64 or 32 pixels."""
        if size not in PRESETS:
            raise ValueError(
                f"Expected a size out of {', '.join(map(str, PRESETS))}, found {size}; or pass an Architecture."
            )
        return cls(PRESETS[size], seed=seed)

    def fit(
        self,
        data: ImageSet,
        out: str | Path | None = None,
        *,
        validation: ImageSet | None = None,
        max_epochs: int = 15,
        steps_per_epoch: int | None = None,
        batch_size: int = 20,
        lr: float = 1e-3,
        seed: int = 0,
        patience: int | None = None,
        precision: Any = "32-true",
        accelerator: str = "auto",
        devices: int | list[int] | str = 1,
        strategy: str = "auto",
        workers: int = 0,
        log: Literal["csv", "tensorboard"] | None = "csv",
        checkpoint_every: int | None = None,
        grids: bool = True,
        resume: bool = True,
        check: bool = True,
        progress: bool = True,
    ) -> pd.DataFrame:
        """Train in place, through Lightning, with Adam.

        The images and the noise of a step depend only on the seed and the number of the step. So the same call after
        an interruption resumes from the last checkpoint and gives the same weights as an uninterrupted run (bit for
        bit on CPU).

        Parameters
        ----------
        data
            Images to train on, of the model's size.
        out
            Folder for ``model/`` (see `load`), ``history.csv``, ``grids/`` (reconstructions and samples after each
            epoch), ``log/`` and ``checkpoints/``. If None, nothing is written.
        validation
            Images whose loss is computed after each epoch.
        max_epochs
            Number of epochs; a finished training continues if called with more.
        steps_per_epoch
            Steps per epoch; by default one pass through the data. The published run used 10,000.
        batch_size
            Images per step, over all devices together.
        lr
            Learning rate.
        seed
            Of the order of the images and of the noise. Initial weights have their own, see `ImageVAE`.
        patience
            Training stops after this many epochs without a lower validation loss, and the weights of the best epoch
            are kept. None trains to the end and keeps the last weights.
        precision
            Lightning's: "32-true", "16-mixed", "bf16-mixed", ...
        accelerator, devices, strategy
            Lightning's: "auto", "cpu", "gpu"; how many; "ddp" for several. Each device processes its share of each
            batch; batch statistics are computed per device.
        workers
            Processes that read ahead.
        log
            Losses of the steps as CSV or for TensorBoard, in ``log/``.
        checkpoint_every
            Steps between checkpoints within an epoch; one is written after each epoch in any case.
        grids
            Whether to write reconstructions and samples after each epoch.
        resume
            Resume the training that ``out`` contains; if False, such a folder is refused.
        check
            Read every image once before training, so that a damaged one is found at once and not after hours.
        progress
            Whether to show progress bars.

        Returns
        -------
        One row per epoch: ``step``, means of ``loss``, ``reconstruction``, ``divergence``, and the same of the
        validation images as ``val_...``.

        Raises
        ------
        ValueError
            If a setting is out of range, images have another size, or ``out`` contains a training with other settings.
        FileExistsError
            If ``out`` contains other files.
        FloatingPointError
            If the loss is no longer finite.
        ImageError
            If an image cannot be read.
        """
        from stcsm.images.model._training import train  # Lightning takes seconds to import, and only training needs it

        history, writes = train(
            self, data, out, validation=validation, max_epochs=max_epochs, steps_per_epoch=steps_per_epoch,
            batch_size=batch_size, lr=lr, seed=seed, patience=patience, precision=precision, accelerator=accelerator,
            devices=devices, strategy=strategy, workers=workers, log=log, checkpoint_every=checkpoint_every,
            grids=grids, resume=resume, check=check, progress=progress,
        )  # fmt: skip
        if out is not None and writes:
            self.save(Path(out) / "model", overwrite=True)
        return history

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write ``model.safetensors`` and ``model.json`` into a new folder, completely or not at all.

        Raises
        ------
        FileExistsError
            If it exists and ``overwrite`` is false, or contains other files.
        """
        write_model(
            folder, self.state_dict(), {"kind": "ImageVAE", "architecture": self.architecture.to_json()}, overwrite
        )

    @classmethod
    def load(cls, folder: str | Path) -> ImageVAE:
        """Read a model that `save` wrote, in evaluation mode; nothing is unpickled.

        Raises
        ------
        FileNotFoundError
            If the folder contains no model.
        ValueError
            If its files are damaged or contain another kind of model.
        """
        tensors, settings = read_model(folder)
        if settings.get("kind") != "ImageVAE":
            raise ValueError(
                f"Expected an ImageVAE in {folder}, found {settings.get('kind', 'another kind of model')!r}."
            )
        try:
            model = cls(Architecture.from_json(settings["architecture"]))
            model.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"Expected a complete ImageVAE in {folder}, found files that do not fit each other: {error}"
            ) from error
        return model.eval()
