"""The published model of gene images (Brocki & Chung 2019, arXiv 1910.13140), as its code computes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anndata import AnnData
from scvi.module.base import LossOutput
from torch import Tensor, nn

from stcsm.models._model import GeneVAE
from stcsm.models._module import GeneMember, GeneVAEModule
from stcsm.models._paper_grid import published_cells
from stcsm.models._paper_weights import read_reference_weights
from stcsm.models._plan import OneCyclePlan
from stcsm.nets import HIDDEN, SIZE, PublishedDecoder, PublishedEncoder, SpotGrid, keras_initialise

N_LATENT = 20
KL_WEIGHT = 0.5e-4


class PublishedModule(GeneVAEModule):
    """Gene images over all 1024 cells in, the published loss out."""

    grid: SpotGrid

    def __init__(self, depth: Tensor, seeds: Sequence[int], grid: SpotGrid):
        super().__init__(depth, "bernoulli", N_LATENT, seeds, _new_member, grid)

    def draw(self, member: int, mean: Tensor, log_var: Tensor) -> Tensor:
        """One draw (N, L), with standard deviation exp(log-variance) as published, not exp(log-variance / 2)."""
        return mean + log_var.exp() * self._noise(member, mean)

    def variance(self, log_var: Tensor) -> Tensor:
        """Variance of the published draw, exp(log-variance) squared."""
        return (2 * log_var).exp()

    def at_spots(self, f: Tensor) -> Tensor:
        """Decoded images (N, 1, 32, 32) at the spots, (N, S)."""
        return self.to_spots(f)

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, list[Tensor]],
        generative_outputs: dict[str, list[Tensor]],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Mean cross-entropy over all cells - 0.5e-4 * mean over latents of (1 + log_var - mean^2 - exp(log_var)).

        ``kl_weight`` is not used: the published divergence has its weight from the first step on.
        """
        counts = tensors.get("target", tensors["counts"])
        images = self.transform(counts, counts)
        loss = images.new_zeros(())
        reconstruction, divergence = images.new_zeros(len(images)), images.new_zeros(len(images))
        for m, logits in enumerate(generative_outputs["f"]):
            mean, log_var = inference_outputs["mean"][m], inference_outputs["log_var"][m]
            cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, images, reduction="none")
            rec_m = cross_entropy.flatten(1).mean(dim=1)
            div_m = -KL_WEIGHT * (1 + log_var - mean.square() - log_var.exp()).mean(dim=1)
            loss = loss + (rec_m + div_m).mean()
            reconstruction = reconstruction + rec_m.detach() / len(self.members)
            divergence = divergence + div_m.detach() / len(self.members)
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=divergence)


def _new_member() -> GeneMember:
    member = GeneMember(PublishedEncoder(N_LATENT), PublishedDecoder(N_LATENT), 0)
    keras_initialise(member, torch.default_generator)
    return member.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PublishedPlan(OneCyclePlan):
    """Adam at a constant rate with Keras's epsilon."""

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer, without a schedule."""
        params = [p for p in self.module.parameters() if p.requires_grad]
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        return {"optimizer": torch.optim.Adam(params, lr=self.lr, eps=1e-7, fused=fused)}


class PublishedVAE(GeneVAE):
    """The published model, made by :meth:`GeneVAE.published`, so that published results can be reproduced.

    A gene is an image of 32 x 32 cells, its counts divided by their largest; three strided convolutions, two dense
    layers, 20 latents, and a decoder that mirrors them, batch normalisation after each ReLU. The loss is the mean
    cross-entropy over all cells, on tissue or not, minus 0.5e-4 times the mean over latents of
    ``1 + log_var - mean^2 - exp(log_var)``, with draws of standard deviation ``exp(log_var)``. Initial weights are
    Keras's, the optimizer is Adam at 5e-4, and all genes with a count are trained on, 10 times in batches of 64.

    Spots are placed as published: ``x = int(x + 0.5) - 1``, ``y = int(y + 0.5)`` of their array coordinates.

    Parameters
    ----------
    adata
        Spots x genes with raw counts and array coordinates: ``.obsm["spatial_array"]`` (:func:`stcsm.io.read_st`), or
        ``.obs["array_col"]`` and ``.obs["array_row"]`` (:func:`stcsm.pp.to_grid`).
    seed
        Seed of weights, noise and order; by default ``scvi.settings.seed``, or 0 where that is not set.

    Raises
    ------
    ValueError
        As for :class:`GeneVAE`, or if the spots do not fit 32 x 32 cells.

    Examples
    --------
    >>> model = stcsm.models.GeneVAE.published(adata)
    >>> model.train()
    >>> stcsm.tl.published_concepts(adata, model, ["Penk", "Doc2g", "Kctd12"])
    >>> stcsm.tl.saliency(adata, model, method="rectgrad", genes="concept", published=True)
    """

    module: PublishedModule

    def __init__(self, adata: AnnData, seed: int | None = None):
        super().__init__(
            adata,
            encoder="conv",
            likelihood="bernoulli",
            n_latent=N_LATENT,
            min_counts=1,
            smoothing=0.0,
            n_hidden=HIDDEN,
            seed=seed,
        )

    def _place(self, adata: AnnData) -> tuple[np.ndarray, tuple[int, int]]:
        if self.sections is not None:
            raise ValueError(
                f"Expected one section for the published model, found {len(self.section_names)}; take one of them, or "
                'GeneVAE(adata, encoder="conv", likelihood="bernoulli"), which takes several'
            )
        return published_cells(adata, self.reader.spots), (SIZE, SIZE)

    def _build_module(self, depth: Tensor) -> PublishedModule:
        grid = self._grid()
        assert grid is not None
        return PublishedModule(depth, [self.settings["seed"] + m for m in range(self.n_members)], grid)

    def _plan(self, lr: float, plan_kwargs: dict[str, Any]) -> PublishedPlan:
        return PublishedPlan(self.module, lr=lr, **plan_kwargs)

    def train(  # type: ignore[override]
        self, max_epochs: int | None = 10, lr: float = 5e-4, batch_size: int | None = 64, **kwargs: Any
    ) -> None:
        """Train with the published settings: see :meth:`GeneVAE.train` for the other parameters.

        ``model.history["train_loss"]`` is the published loss.
        """
        super().train(max_epochs=max_epochs, lr=lr, batch_size=batch_size, **kwargs)

    def load_published_weights(self, npz: str | Path) -> None:
        """Take the weights of the original Keras model; the model then counts as trained.

        Parameters
        ----------
        npz
            ``enc__<layer>__<weight>`` and ``dec__<layer>__<weight>`` under Keras's layer names: convolutions (height,
            width, in, out), transposed ones (height, width, out, in), dense layers (in, out).

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no such archive, or an array is absent, not finite or of another shape; the model stays as it was.
        """
        read_reference_weights(npz, self.module.member(0).encoder, self.module.member(0).decoder)
        self.module.eval()
        self.is_trained_ = True

    def sampled_latents(self, seed: int = 0) -> np.ndarray:
        """One draw from every gene's posterior, (G, L): what the published code takes for a gene's latents.

        NaN for genes without a count. Two draws share few of a gene's nearest genes; the mean
        (:meth:`get_latent_representation`) does not have this noise.
        """
        mean, variance = self.get_latent_representation(give_var=True)
        noise = np.random.default_rng(seed).standard_normal(mean.shape, dtype=np.float32)
        return mean + np.sqrt(variance) * noise

    @torch.inference_mode()
    def decode_images(self, z: np.ndarray | Tensor) -> np.ndarray:
        """Decode latents (N, L) to pictures (N, 32, 32) of values between 0 and 1, as the paper shows them."""
        z = self._check_latents(z, 0)
        return torch.sigmoid(self.module.member(0).decoder(z))[:, 0].cpu().numpy()
