"""The variational autoencoder of face images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stcsm._files import read_model, write_model

from ._architecture import PRESETS, Architecture
from ._layers import decoder, initialise, trunk

if TYPE_CHECKING:
    import pandas as pd

    from ._data import Pictures

__all__ = ["ImageVAE", "Loss", "as_pixels"]


class Loss(NamedTuple):
    """Of a batch: ``total`` = ``reconstruction`` + kl_weight * ``divergence``."""

    total: Tensor
    reconstruction: Tensor
    divergence: Tensor


def as_pixels(pictures: Tensor | NDArray[np.generic]) -> Tensor:
    """Turn uint8 (0 to 255) or float (0 to 1) pictures (n, 3, size, size) into floats between 0 and 1.

    Raises
    ------
    ValueError
        If the shape is another, or floats lie beyond 0 and 1.
    """
    given = torch.as_tensor(pictures)
    if given.ndim != 4 or given.shape[1] != 3:
        raise ValueError(f"Expected pictures of shape (n, 3, size, size), found {tuple(given.shape)}.")
    if given.dtype == torch.uint8:
        return given.float().div_(255)
    if not given.is_floating_point():
        raise ValueError(f"Expected uint8 pictures, or floats between 0 and 1, found {given.dtype}.")
    if given.numel() and not (float(given.min()) >= 0 and float(given.max()) <= 1):
        raise ValueError(
            f"Expected floats between 0 and 1, found {float(given.min()):g} to "
            f"{float(given.max()):g}; divide by 255, or pass uint8."
        )
    return given


class ImageVAE(nn.Module):
    """Variational autoencoder of square RGB pictures (Brocki & Chung 2019, arXiv 1910.13140).

    Convolutions that halve the picture, each followed by its activation and then batch normalisation, a dense layer
    and two heads; a decoder that mirrors them. Padding, batch normalisation and initial weights are TensorFlow's, as
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
        super().__init__()
        arch = Architecture() if architecture is None else architecture
        self.architecture = arch
        # torch draws weights when it makes a layer; leave the user's generator alone
        with torch.random.fork_rng(devices=[]):
            self.trunk, width = trunk(arch)
            self.z_mean = nn.Linear(width, arch.latent)
            self.z_log_var = nn.Linear(width, arch.latent)
            self.decoder = decoder(arch)
        initialise(self, seed)
        if arch.log_var_start is not None:
            nn.init.zeros_(self.z_log_var.weight)
            nn.init.constant_(self.z_log_var.bias, arch.log_var_start)
        # several times faster on CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def preset(cls, size: int = 128, *, seed: int = 0) -> ImageVAE:
        """Return the model for pictures of a size: 128 (published), 64 or 32."""
        if size not in PRESETS:
            raise ValueError(
                f"Expected a size out of {', '.join(map(str, PRESETS))}, found {size}; or pass an Architecture."
            )
        return cls(PRESETS[size], seed=seed)

    # ---------------------------------------------------------------- parts

    @property
    def encoder(self) -> nn.Module:
        """Pictures (n, 3, size, size) between 0 and 1 -> latent means (n, latent).

        What the attribution engine takes.
        """
        return nn.Sequential(self.trunk, self.z_mean)

    def sampled_encoder(self, seed: int = 0) -> nn.Module:
        """Return the encoder as published: a draw from the posterior, with one fixed noise vector for all pictures.

        The published code's output is z_mean + exp(z_log_var) * eps, also when it explains, so its gradients flow
        through both heads.
        """
        return _SampledEncoder(self, seed)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.z_mean.weight.device

    def n_parameters(self, trainable: bool = False) -> int:
        """Count parameters as Keras does: running means and variances count.

        Unless only ``trainable`` ones are asked for.
        """
        total = sum(p.numel() for p in self.parameters())
        if not trainable:
            total += sum(b.numel() for name, b in self.named_buffers() if not name.endswith("num_batches_tracked"))
        return total

    # ---------------------------------------------------------------- passes

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, latent) of pictures between 0 and 1.

        The published model calls it so; it draws with standard deviation exp(log variance), not exp(log variance / 2).
        """
        self._check(pixels)
        hidden = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        return self.z_mean(hidden).float(), self.z_log_var(hidden).float()

    def logits(self, latents: Tensor) -> Tensor:
        """Decode latents (n, latent) to pictures before the sigmoid, (n, 3, size, size)."""
        return self.decoder(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n, latent) to pictures between 0 and 1, (n, 3, size, size)."""
        return torch.sigmoid(self.logits(latents).float())

    def forward(self, pixels: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode, draw, decode: logits, mean, log variance.

        Without ``noise`` (n, latent) the mean itself is decoded.
        """
        mean, log_var = self.posterior(pixels)
        latents = mean if noise is None else mean + torch.exp(log_var) * noise
        return self.logits(latents), mean, log_var

    def loss(self, pixels: Tensor, noise: Tensor | None = None) -> Loss:
        """Return the published loss, in nats.

        Mean binary cross-entropy over pixels and channels, minus kl_weight times the mean over latents of
        1 + log_var - mean^2 - exp(log_var). Both are means, and the usual 1/2 is absent.
        """
        logits, mean, log_var = self(pixels, noise)
        reconstruction = F.binary_cross_entropy_with_logits(logits.float(), pixels)
        divergence = -(1 + log_var - mean.square() - log_var.exp()).mean()
        return Loss(reconstruction + self.architecture.kl_weight * divergence, reconstruction, divergence)

    # ---------------------------------------------------------------- training

    def fit(
        self,
        data: Pictures,
        out: str | Path | None = None,
        *,
        validation: Pictures | None = None,
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

        Which pictures and which noise a step sees depends on the seed and the step's number alone. So the same call,
        made again after a kill, goes on from the last checkpoint and ends with the weights that it would have had
        without (bit for bit on CPU).

        Parameters
        ----------
        data
            Pictures to train on, of the model's size.
        out
            Folder for ``model/`` (see `load`), ``history.csv``, ``grids/`` (reconstructions and samples after each
            epoch), ``log/`` and ``checkpoints/``. Without it nothing is written.
        validation
            Pictures whose loss is taken after each epoch.
        max_epochs
            Epochs; a finished training goes on if called again with more.
        steps_per_epoch
            Steps an epoch; by default one pass through the data. The published run took 10,000.
        batch_size
            Pictures a step, over all devices together.
        lr
            Learning rate.
        seed
            Of the order of the pictures and of the noise. Initial weights have their own, see `ImageVAE`.
        patience
            Epochs without a better validation loss after which training stops; the best epoch's weights are kept.
            None trains to the end and keeps the last weights.
        precision
            Lightning's: "32-true", "16-mixed", "bf16-mixed", ...
        accelerator, devices, strategy
            Lightning's: "auto", "cpu", "gpu"; how many; "ddp" for several. Each device takes its share of each batch;
            batch statistics are each device's own.
        workers
            Processes that read ahead.
        log
            Losses of the steps as CSV or for TensorBoard, in ``log/``.
        checkpoint_every
            Steps between checkpoints within an epoch; one is made after each epoch in any case.
        grids
            Whether to draw reconstructions and samples after each epoch.
        resume
            Go on with the training that ``out`` holds; without it such a folder is refused.
        check
            Read every picture once before training, so that a damaged one is found now and not hours later.
        progress
            Whether to show progress bars.

        Returns
        -------
        One row an epoch: ``step``, means of ``loss``, ``reconstruction``, ``divergence``, and the same of the
        validation pictures as ``val_...``.

        Raises
        ------
        ValueError
            If a setting is out of range, pictures have another size, or ``out`` holds a training of other settings.
        FileExistsError
            If ``out`` holds other things.
        FloatingPointError
            If the loss is no longer finite.
        PictureError
            If a picture cannot be read.
        """
        from ._training import fit  # Lightning loads when it is needed

        return fit(
            self, data, out, validation=validation, max_epochs=max_epochs, steps_per_epoch=steps_per_epoch,
            batch_size=batch_size, lr=lr, seed=seed, patience=patience, precision=precision, accelerator=accelerator,
            devices=devices, strategy=strategy, workers=workers, log=log, checkpoint_every=checkpoint_every,
            grids=grids, resume=resume, check=check, progress=progress,
        )  # fmt: skip

    def _check(self, pixels: Tensor) -> None:
        size = self.architecture.size
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, size, size):
            raise ValueError(
                f"Expected pictures of shape (n, 3, {size}, {size}), found {tuple(pixels.shape)}; read "
                f"them with size={size}."
            )

    # ---------------------------------------------------------------- files

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write ``model.safetensors`` and ``model.json`` into a new folder, whole or not at all.

        Raises
        ------
        FileExistsError
            If it exists and ``overwrite`` is false, or holds other things.
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
            If the folder holds no model.
        ValueError
            If its files are damaged or hold another kind of model.
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
                f"Expected a whole ImageVAE in {folder}, found files that do not fit each other: {error}"
            ) from error
        return model.eval()


class _SampledEncoder(nn.Module):
    noise: Tensor

    def __init__(self, model: ImageVAE, seed: int) -> None:
        super().__init__()
        self.trunk, self.z_mean, self.z_log_var = model.trunk, model.z_mean, model.z_log_var
        draw = np.random.default_rng(seed).standard_normal(model.architecture.latent, dtype=np.float32)
        self.register_buffer("noise", torch.from_numpy(draw).to(model.device))

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.trunk(pixels)
        return self.z_mean(hidden) + torch.exp(self.z_log_var(hidden)) * self.noise
