"""How well a gene model predicts counts, under scvi-tools' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stcsm.models._data import GeneDataModule
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader


class ScoringMixin:
    """``get_elbo`` and ``get_reconstruction_error``."""

    module: GeneVAEModule
    samples: GeneReader
    reader: GeneReader
    settings: dict[str, Any]
    trained_samples: np.ndarray

    if TYPE_CHECKING:  # what the model brings

        def _gene_index(self, genes: Any) -> np.ndarray: ...

        def _check_if_trained(self, warn: bool = True) -> None: ...

    def get_elbo(
        self,
        genes: Any = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        *,
        held_out: float = 0.1,
        seed: int | None = None,
    ) -> float | np.ndarray:
        """Evidence lower bound of held-out counts: higher is better.

        Each gene's counts are thinned binomially, as early stopping does it: what is left is encoded, and the bound is
        that of the part that was taken out (log-likelihood minus divergence, at the posterior mean, mean over the
        members of the ensemble). A model that was trained on all counts has seen those that are held out here; on
        another section (``load(..., match="positions")``) it has not.

        Parameters
        ----------
        genes
            Gene names or indices; None is all genes trained on. Of several sections, the samples of these genes that
            are trained on.
        batch_size
            Genes read together; the result does not depend on it.
        return_mean
            Mean over genes; otherwise an array, of several sections section by section.
        held_out
            Share of the counts that is held out; 0 scores the very counts that are encoded.
        seed
            Of the thinning; by default the model's.

        Returns
        -------
        Nats a gene.

        Raises
        ------
        ValueError
            If a gene is unknown, none of them is trained on, or ``held_out`` is out of range.
        """
        reconstruction, divergence = self._losses(genes, batch_size, held_out, seed)
        elbo = -(reconstruction + divergence)
        return float(elbo.mean()) if return_mean else elbo

    def get_reconstruction_error(
        self,
        genes: Any = None,
        batch_size: int | None = None,
        return_mean: bool = True,
        *,
        held_out: float = 0.1,
        seed: int | None = None,
    ) -> dict[str, float | np.ndarray]:
        """Minus the log-likelihood of held-out counts: lower is better.

        Parameters are those of :meth:`get_elbo`.

        Returns
        -------
        ``{"reconstruction_loss": nats a gene}``, as scvi-tools returns it.
        """
        reconstruction, _ = self._losses(genes, batch_size, held_out, seed)
        return {"reconstruction_loss": float(reconstruction.mean()) if return_mean else reconstruction}

    @torch.inference_mode()
    def _losses(
        self, genes: Any, batch_size: int | None, held_out: float, seed: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reconstruction loss and divergence of each sample."""
        self._check_if_trained(warn=True)
        if not 0 <= held_out < 1:
            raise ValueError(f"Expected held_out of 0 or more and below 1, found {held_out}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Expected batch_size of 1 or more, found {batch_size}")
        chosen = self.trained_samples
        if genes is not None:
            chosen = self._of_genes(self._gene_index(genes))
        if not len(chosen):
            raise ValueError("Expected genes that the model was trained on, found none among those given")
        self.module.eval()
        seed = self.settings["seed"] if seed is None else seed
        data = GeneDataModule(self.samples, chosen, batch_size or 128, seed, held_out)
        losses = []
        for batch in data.every_gene():
            batch = {name: t.to(self.module.device) if hasattr(t, "to") else t for name, t in batch.items()}
            _, _, out = self.module(batch)
            # scvi-tools keeps losses by name, here one each.
            both = [t for held in (out.reconstruction_loss, out.kl_local) for t in held.values()]
            losses.append(torch.stack(both).cpu().numpy())
        reconstruction, divergence = np.concatenate(losses, axis=1).astype(np.float64)
        return reconstruction, divergence

    def _of_genes(self, genes: np.ndarray) -> np.ndarray:
        """Samples of genes that are trained on, in the order of the genes, section by section."""
        n = self.reader.n_genes
        samples = (genes + n * np.arange(self.samples.n_genes // n)[:, None]).ravel()
        return samples[np.isin(samples, self.trained_samples)]
