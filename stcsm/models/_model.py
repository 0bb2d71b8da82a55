"""GeneVAE: each gene is a sample, the spots are its features."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data.fields import ObsmField
from scvi.model.base import BaseModelClass
from torch import Tensor, nn

from stcsm import _keys
from stcsm.models._grid import grid_cells
from stcsm.models._logging import quiet
from stcsm.models._members import member_maker
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader
from stcsm.models._saving import SavingMixin
from stcsm.models._settings import check_settings, choose_encoder
from stcsm.models._setup import Setup, check_anndata, check_coordinates, counts_matrix, read_setup, write_setup
from stcsm.models._training import TrainingMixin
from stcsm.nets._grid import SpotGrid

if TYPE_CHECKING:
    from stcsm.models._paper import PublishedVAE

logger = logging.getLogger(__name__)

ENCODE_BATCH = 512
"""Genes encoded together, at most; fixed by the model alone, so that results cannot depend on it."""
ENCODE_VALUES = 2**24
"""Genes x spots encoded together."""


class GeneVAE(TrainingMixin, SavingMixin, BaseModelClass):
    """Variational autoencoder of gene profiles over the spots of a tissue.

    The input of gene g at spot s is ``u_gs = log1p(x_gs / (n_g d_s + 1/2))``, with n_g the gene's counts and d_s the
    share of all counts that fall on the spot, so that neither a gene's abundance nor a spot's depth is a signal. The
    decoder's mean is ``n_g softmax_s(f(z) + log d_s)``; the loss is the negative ELBO (Kingma & Welling 2014).

    Parameters
    ----------
    adata
        Spots x genes, set up with :meth:`setup_anndata`. It is neither changed nor copied.
    encoder
        ``"mlp"``: fully connected over the spots; ``"conv"``: convolutions over a grid of cells
        (:func:`stcsm.pp.to_grid`); ``"auto"``: fully connected.
    likelihood
        ``"nb"``: negative binomial with a dispersion for each spot; ``"multinomial"``; ``"bernoulli"``: cross-entropy
        of each gene's counts divided by their largest, which are then the input too.
    n_latent
        Size L of the latent space.
    n_seeds
        Members of the ensemble, trained side by side from different seeds.
    min_counts
        Genes with fewer counts are not trained on, but embedded if they have any.
    smoothing
        Width of a Gaussian filter over neighbouring spots, before the encoder and after the decoder, in median
        nearest-neighbour distances; 0 is none. ``"auto"``: of 0, 0.5, 1 and 2 the one whose short training predicts
        held-out counts best, chosen when :meth:`train` is called; none until then.
    n_hidden
        Units of the hidden layers.
    seed
        Seed of weights, noise and order; by default ``scvi.settings.seed``, or 0 where that is not set.

    Raises
    ------
    ValueError
        If ``adata`` was not set up, a setting is out of range, or fewer than two genes have ``min_counts`` counts.

    Examples
    --------
    >>> stcsm.models.GeneVAE.setup_anndata(adata)
    >>> model = stcsm.models.GeneVAE(adata)
    >>> model.train()
    >>> stcsm.tl.embed_genes(adata, model)
    """

    def __init__(
        self,
        adata: AnnData,
        encoder: str = "auto",
        likelihood: str = "nb",
        n_latent: int = 20,
        n_seeds: int = 1,
        min_counts: int = 20,
        smoothing: float | str = "auto",
        n_hidden: int = 128,
        seed: int | None = None,
    ):
        settings = {
            "encoder": encoder,
            "likelihood": likelihood,
            "n_latent": n_latent,
            "n_seeds": n_seeds,
            "min_counts": min_counts,
            "smoothing": smoothing,
            "n_hidden": n_hidden,
            "seed": seed if seed is not None else scvi.settings.seed or 0,
        }
        check_settings(settings)
        settings["encoder"] = choose_encoder(encoder)
        setup = read_setup(adata)
        check_anndata(adata, setup)  # the counts may have been normalised since
        self._attach(adata, setup, settings)
        if settings["encoder"] == "conv":
            cells, shape = self._place(adata)
            settings["grid"] = {"shape": list(shape), "cells": cells.tolist()}
        trained = np.flatnonzero(self.reader.gene_totals >= min_counts)
        if len(trained) < 2:
            raise ValueError(
                f"Expected at least 2 genes with {min_counts} counts or more to train on, found {len(trained)} of "
                f"{adata.n_vars}; lower min_counts"
            )
        self.trained_genes = trained
        self._model_summary_string = self._summary()
        logger.info(self._model_summary_string)
        if self.reader.n_spots < adata.n_obs:
            logger.warning(
                f"{adata.n_obs - self.reader.n_spots} of {adata.n_obs} spots have no count; they are left out of the "
                "model, and maps are NaN there"
            )
        self.module = self._build_module(torch.from_numpy(self.reader.depth.astype(np.float32)))

    def _attach(self, adata: AnnData, setup: Setup, settings: dict[str, Any], spots: np.ndarray | None = None) -> None:
        """Take hold of the data: scvi's registry stands on a shell, so that nothing is written into ``adata``."""
        coordinates = check_coordinates(adata, setup.spatial_key)
        self.reader = GeneReader(counts_matrix(adata, setup.layer), spots)
        shell = AnnData(
            obs=pd.DataFrame(index=adata.obs_names),
            var=pd.DataFrame(index=adata.var_names),
            obsm={
                setup.spatial_key: pd.DataFrame(
                    coordinates, index=adata.obs_names, columns=["x", "y", "z"][: coordinates.shape[1]]
                )
            },
        )
        manager = AnnDataManager(
            fields=[ObsmField("spatial", setup.spatial_key)],
            setup_method_args=self._get_setup_method_args(
                cls=type(self), adata=None, layer=setup.layer, spatial_key=setup.spatial_key
            ),
        )
        with quiet("scvi", logging.WARNING):
            manager.register_fields(shell)
        self.register_manager(manager)
        super().__init__(shell)
        self._user_adata = adata
        self.setup = setup
        self.settings = settings

    @staticmethod
    def paper(adata: AnnData, seed: int | None = None) -> PublishedVAE:
        """The published model (Brocki & Chung 2019): see :class:`stcsm.models.PublishedVAE`.

        ``adata`` is set up with the defaults of :meth:`setup_anndata` where it is not.
        """
        from stcsm.models._paper import PublishedVAE

        if not isinstance(adata, AnnData) or "setup" not in adata.uns.get(_keys.UNS, {}):
            GeneVAE.setup_anndata(adata)
        return PublishedVAE(adata, seed=seed)

    @classmethod
    def _class_named(cls, name: Any) -> type[GeneVAE]:
        """The class of a saved model."""
        from stcsm.models._paper import PublishedVAE

        return PublishedVAE if name == PublishedVAE.__name__ else cls

    @classmethod
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, spatial_key: str = "spatial") -> None:
        """Check ``adata`` and record where its counts and coordinates are.

        Only ``adata.uns["stcsm"]["setup"]`` is written.

        Parameters
        ----------
        adata
            Spots x genes with raw counts.
        layer
            Layer of the counts; None is ``adata.X``.
        spatial_key
            Key of the coordinates in ``adata.obsm``, (n_spots, 2 or 3).

        Raises
        ------
        TypeError
            If ``adata`` is not an AnnData.
        ValueError
            If it is empty, has duplicate names, no coordinates, or values that are not counts (negative, fractional,
            NaN, log-normalised: the message says where and how many).
        """
        setup = Setup(layer, spatial_key)
        check_anndata(adata, setup)
        write_setup(adata, setup)

    def _build_module(self, depth: Tensor) -> GeneVAEModule:
        s = self.settings
        coordinates = self._coordinates()
        grid = self._grid()
        return GeneVAEModule(
            depth,
            likelihood=s["likelihood"],
            n_latent=s["n_latent"],
            seeds=[s["seed"] + m for m in range(s["n_seeds"])],
            make_member=member_maker(s, coordinates, grid),
            grid=grid,
        )

    def _coordinates(self) -> np.ndarray:
        """Of the model's spots, (S', 2 or 3)."""
        return np.asarray(self._adata.obsm[self.setup.spatial_key], dtype=float)[self.reader.spots]

    def _trial_module(self, depth: Tensor, coordinates: np.ndarray, width: float) -> GeneVAEModule:
        """One fully connected member with the negative binomial, to choose the filter's width by."""
        s = {**self.settings, "smoothing": width, "likelihood": "nb"}
        return GeneVAEModule(depth, "nb", s["n_latent"], [s["seed"]], member_maker(s, coordinates, None))

    def _place(self, adata: AnnData) -> tuple[np.ndarray, tuple[int, int]]:
        """Cells of the model's spots, and the grid's shape."""
        return grid_cells(adata, self.reader.spots, self.setup.spatial_key)

    def _grid(self) -> SpotGrid | None:
        held = self.settings.get("grid")
        return None if held is None else SpotGrid(torch.as_tensor(held["cells"]), tuple(held["shape"]))

    @property
    def adata(self) -> AnnData:
        """The user's AnnData."""
        return self._user_adata

    @property
    def spot_names(self) -> pd.Index:
        """Names (S,) of the spots of the AnnData, as they were when the model was made."""
        return self._adata.obs_names

    @property
    def gene_names(self) -> pd.Index:
        """Names (G,) of the genes of the AnnData, as they were when the model was made."""
        return self._adata.var_names

    @property
    def n_members(self) -> int:
        """Members of the ensemble."""
        return self.settings["n_seeds"]

    @property
    def encoder(self) -> nn.Module:
        """Encoder of the first member: inputs to posterior means (N, L)."""
        return self.encoders[0]

    @property
    def encoders(self) -> list[nn.Module]:
        """Encoder of every member."""
        return [self.module.member(m).encoder for m in range(self.n_members)]

    @property
    def spots(self) -> np.ndarray:
        """Indices (S',) of the spots that the model knows: those with at least one count."""
        return self.reader.spots

    def view_anndata_setup(self, adata: AnnData | None = None, hide_state_registries: bool = False) -> None:
        """Print how the AnnData was set up (scvi-tools' table).

        Raises
        ------
        ValueError
            If ``adata`` is another than the model's.
        """
        if adata is not None and adata is not self.adata:
            raise ValueError(
                "Expected the AnnData of this model, found another; use GeneVAE.load(folder, adata) for it"
            )
        # scvi-tools uses rich.pretty without importing it.
        importlib.import_module("rich.pretty")
        self.adata_manager.view_registry(hide_state_registries=hide_state_registries)

    def inputs(self, genes: Any = None) -> Tensor:
        """Encoder inputs of some genes.

        Parameters
        ----------
        genes
            Gene names or indices; None is all genes.

        Returns
        -------
        On the CPU: (n, S') with S' spots with at least one count, see :attr:`spots`; images (n, 1, H, W) where the
        encoder is convolutional.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
        index = self._gene_index(genes)
        counts = torch.from_numpy(self.reader.profiles(index))
        totals = torch.from_numpy(self.reader.gene_totals[index].astype(np.float32))[:, None]
        return self.module.transform(counts.to(self.device), totals.to(self.device)).cpu()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one gene's encoder input: (S',) or (1, H, W)."""
        held = self.settings.get("grid")
        return (self.reader.n_spots,) if held is None else (1, *held["shape"])

    def maps_to_spots(self, maps: np.ndarray) -> np.ndarray:
        """Bring maps over encoder inputs, (..., S') or (..., 1, H, W), to the model's spots, (..., S').

        Spots that share a cell of the grid get one value.

        Raises
        ------
        ValueError
            If the maps are of another shape.
        """
        shape = self.input_shape
        if maps.shape[maps.ndim - len(shape) :] != shape:
            raise ValueError(f"Expected maps of shape (..., {', '.join(map(str, shape))}), found {maps.shape}")
        if len(shape) == 1:
            return maps
        return maps.reshape(*maps.shape[: maps.ndim - 3], -1)[..., np.asarray(self.settings["grid"]["cells"])]

    @overload
    def get_latent_representation(self, give_var: Literal[False] = False, member: int = 0) -> np.ndarray: ...

    @overload
    def get_latent_representation(self, give_var: Literal[True], member: int = 0) -> tuple[np.ndarray, np.ndarray]: ...

    @torch.inference_mode()
    def get_latent_representation(
        self, give_var: bool = False, member: int = 0
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Posterior mean of every gene.

        Parameters
        ----------
        give_var
            Return the posterior variance too.
        member
            Member of the ensemble.

        Returns
        -------
        (G, L), or two of them; NaN for genes without a count.

        Raises
        ------
        ValueError
            If there is no such member.
        """
        self._check_if_trained(warn=True)
        self._check_member(member)
        self.module.eval()
        encoder = self.module.member(member).encoder
        shape = (self.reader.n_genes, self.settings["n_latent"])
        mean, var = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        genes = np.flatnonzero(self.reader.gene_totals > 0)
        step = int(np.clip(ENCODE_VALUES // self.reader.n_spots, 1, ENCODE_BATCH))
        for start in range(0, len(genes), step):
            part = genes[start : start + step]
            m, log_var = encoder.posterior(self.inputs(part).to(self.device))
            mean[part], var[part] = m.cpu().numpy(), self.module.variance(log_var).cpu().numpy()
        return (mean, var) if give_var else mean

    @torch.inference_mode()
    def decode(self, z: np.ndarray | Tensor, member: int = 0) -> np.ndarray:
        """Decoder output f(z): log of how much more a gene is found at a spot than the spot's depth says.

        With the Bernoulli likelihood it is the logit of the max-scaled counts.

        Parameters
        ----------
        z
            Latents (N, L).
        member
            Member of the ensemble whose latent space ``z`` lies in.

        Returns
        -------
        (N, S) over all spots, NaN where a spot has no count. A constant a row is free (the soft-max removes it).

        Raises
        ------
        ValueError
            If ``z`` is not of shape (N, L), or there is no such member.
        """
        z = self._check_latents(z, member)
        return self.to_all_spots(self.module.at_spots(self.module.member(member).decoder(z)).cpu().numpy())

    def _check_latents(self, z: np.ndarray | Tensor, member: int) -> Tensor:
        """Latents on the model's device; the module is in evaluation mode then."""
        self._check_member(member)
        z = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if z.ndim != 2 or z.shape[1] != self.settings["n_latent"]:
            raise ValueError(f"Expected latents of shape (N, {self.settings['n_latent']}), found {tuple(z.shape)}")
        self.module.eval()
        return z.to(self.device)

    def to_all_spots(self, maps: np.ndarray) -> np.ndarray:
        """Bring maps over the model's spots (..., S') to all spots (..., S), NaN where a spot has no count."""
        full = np.full((*maps.shape[:-1], self.reader.n_all_spots), np.nan, dtype=maps.dtype)
        full[..., self.spots] = maps
        return full

    def describe(self) -> dict[str, Any]:
        """Settings and numbers of genes, as plain values that an AnnData can hold."""
        totals, few = self.reader.gene_totals, self.settings["min_counts"]
        settings = {k: v for k, v in self.settings.items() if k != "grid"}
        if "grid" in self.settings:
            settings |= dict(zip(("grid_rows", "grid_columns"), self.settings["grid"]["shape"], strict=True))
        return {
            **settings,
            "n_genes_trained": len(self.trained_genes),
            "n_genes_embedded_only": int(((totals > 0) & (totals < few)).sum()),
            "n_genes_without_counts": int((totals == 0).sum()),
            "n_spots": self.reader.n_spots,
            "n_spots_without_counts": int(self.reader.n_all_spots - self.reader.n_spots),
        }

    def _check_member(self, member: int) -> None:
        if not 0 <= member < self.n_members:
            raise ValueError(f"Expected a member from 0 to {self.n_members - 1}, found {member}")

    def _gene_index(self, genes: Any) -> np.ndarray:
        if genes is None:
            return np.arange(self.reader.n_genes)
        genes = np.atleast_1d(np.asarray(genes))
        if genes.dtype == bool:
            if genes.shape != (self.reader.n_genes,):
                raise ValueError(f"Expected a mask of {self.reader.n_genes} genes, found shape {genes.shape}")
            return np.flatnonzero(genes)
        if genes.dtype.kind in "iu":
            outside = (genes < 0) | (genes >= self.reader.n_genes)
            if outside.any():
                raise ValueError(f"Expected indices from 0 to {self.reader.n_genes - 1}, found {genes[outside][0]}")
            return genes
        index = self.gene_names.get_indexer(genes)
        if (index < 0).any():
            raise ValueError(f"Expected gene names of this AnnData, found {genes[index < 0][0]!r}")
        return index

    def _summary(self) -> str:
        s = self.describe()
        return (
            f"{type(self).__name__}: {s['n_seeds']} member(s), {s['encoder']} encoder, {s['likelihood']} likelihood, "
            f"{s['n_latent']} latents, smoothing {s['smoothing']}\n"
            f"{s['n_genes_trained']} genes trained on, {s['n_genes_embedded_only']} with fewer than {s['min_counts']} "
            f"counts embedded only, {s['n_genes_without_counts']} without a count (NaN); {s['n_spots']} spots"
        )
