"""GeneVAE: each gene is a sample, the spots are its features."""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, ObsmField
from scvi.model.base import BaseModelClass
from torch import Tensor, nn

from stcsm import _keys
from stcsm.models._grid import grid_cells, place_cells
from stcsm.models._logging import quiet
from stcsm.models._members import member_maker
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader
from stcsm.models._reading import ReadingMixin
from stcsm.models._saving import SavingMixin
from stcsm.models._scoring import ScoringMixin
from stcsm.models._sections import Frame, Sections, find_sections, spot_places
from stcsm.models._settings import check_settings, choose_encoder
from stcsm.models._setup import (
    Setup,
    check_anndata,
    check_coordinates,
    counts_matrix,
    read_setup,
    section_labels,
    write_setup,
)
from stcsm.models._training import TrainingMixin
from stcsm.nets import SpotGrid

if TYPE_CHECKING:
    from stcsm.models._paper import PublishedVAE

logger = logging.getLogger(__name__)


class GeneVAE(TrainingMixin, ReadingMixin, ScoringMixin, SavingMixin, BaseModelClass):
    """Variational autoencoder of gene profiles over the spots of a tissue.

    The input of gene g at spot s is ``u_gs = log1p(x_gs / (n_g d_s + 1/2))``, with n_g the gene's counts and d_s the
    share of all counts that fall on the spot, so that neither a gene's abundance nor a spot's depth is a signal. The
    decoder's mean is ``n_g softmax_s(f(z) + log d_s)``; the loss is the negative ELBO (Kingma & Welling 2014).

    Of several sections (``setup_anndata(adata, batch_key=...)``) a sample is a gene in one section, and its features
    are the places that all sections share; n_g and d_s are then those of its section.

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
        Genes with fewer counts are not trained on, but embedded if they have any (of several sections: in a section).
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
        find_sections(adata, setup)
        self._attach(adata, setup, settings)
        if settings["encoder"] == "conv":
            cells, shape = self._place(adata)
            settings["grid"] = {"shape": list(shape), "cells": cells.tolist()}
        self._choose_samples()
        if len(self.trained_samples) < 2:
            raise ValueError(
                f"Expected at least 2 genes with {min_counts} counts or more to train on, found "
                f"{len(self.trained_samples)} of {adata.n_vars}; lower min_counts"
            )
        self._model_summary_string = self._summary()
        logger.info(self._model_summary_string)
        if self.reader.n_spots < adata.n_obs:
            logger.warning(
                f"{adata.n_obs - self.reader.n_spots} of {adata.n_obs} spots have no count; they are left out of the "
                "model, and maps are NaN there"
            )
        self.module = self._build_module(torch.from_numpy(self.samples.depth.astype(np.float32)))

    def _attach(
        self,
        adata: AnnData,
        setup: Setup,
        settings: dict[str, Any],
        spots: np.ndarray | None = None,
        sections: Sections | None = None,
        frame: Frame | None = None,
    ) -> None:
        """Take hold of the data: scvi's registry stands on a shell, so that nothing is written into ``adata``."""
        coordinates = check_coordinates(adata, setup.spatial_key)
        self.reader = GeneReader(counts_matrix(adata, setup.layer), spots)
        if spots is None:
            sections = find_sections(adata, setup, self.reader.spots)
        self.sections = sections
        self.samples = self.reader
        labels = section_labels(adata, setup)
        self.section_names = () if labels is None else tuple(np.unique(labels).tolist())
        if sections is None:
            self.frame = frame or self._places_now(adata, setup)
        else:
            self.frame = sections.frame
            self.section_names = sections.names
            self.samples = self.reader.in_sections(
                sections.section, sections.place, len(sections.names), len(sections.frame.keys)
            )
        shell = AnnData(
            obs=pd.DataFrame(index=adata.obs_names)
            if labels is None
            else pd.DataFrame({setup.batch_key: pd.Categorical(labels)}, index=adata.obs_names),
            var=pd.DataFrame(index=adata.var_names),
            obsm={
                setup.spatial_key: pd.DataFrame(
                    coordinates, index=adata.obs_names, columns=["x", "y", "z"][: coordinates.shape[1]]
                )
            },
        )
        fields: list[Any] = [ObsmField("spatial", setup.spatial_key)]
        if labels is not None:
            fields.append(CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, setup.batch_key))
        manager = AnnDataManager(
            fields=fields,
            setup_method_args=self._get_setup_method_args(
                cls=type(self),
                adata=None,
                layer=setup.layer,
                spatial_key=setup.spatial_key,
                batch_key=setup.batch_key,
            ),
        )
        with quiet("scvi", logging.WARNING):
            manager.register_fields(shell)
        self.register_manager(manager)
        super().__init__(shell)
        self._user_adata = adata
        self.setup = setup
        self.settings = settings

    def _places_now(self, adata: AnnData, setup: Setup) -> Frame:
        """Where the spots lie; the AnnData may be given other places before the model is saved."""
        here, seen = spot_places(adata, setup.spatial_key), self.reader.spots
        return Frame(here.kind, here.keys[seen], here.coordinates[seen])

    def _choose_samples(self) -> None:
        """Which samples are trained on, and which genes these are."""
        self.trained_samples = np.flatnonzero(self.samples.gene_totals >= self.settings["min_counts"])
        self.trained_genes = np.unique(self.trained_samples % self.reader.n_genes)

    @staticmethod
    def published(adata: AnnData, seed: int | None = None) -> PublishedVAE:
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
    def setup_anndata(
        cls, adata: AnnData, layer: str | None = None, spatial_key: str = "spatial", batch_key: str | None = None
    ) -> None:
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
        batch_key
            Column of ``adata.obs`` that names each spot's section, where there are several (replicates). They have to
            share their places: equal rows and columns (``adata.obs["array_row"]`` and ``["array_col"]``, see
            :func:`stcsm.pp.to_grid`), or, where these are absent, equal coordinates.

        Raises
        ------
        TypeError
            If ``adata`` is not an AnnData.
        ValueError
            If it is empty, has duplicate names, no coordinates, or values that are not counts (negative, fractional,
            NaN, log-normalised: the message says where and how many); or if a spot has no section, two spots of a
            section lie on one place, or a section has fewer than half of its places in common with the others.
        """
        setup = Setup(layer, spatial_key, batch_key)
        check_anndata(adata, setup)
        find_sections(adata, setup)
        write_setup(adata, setup)

    def _build_module(self, depth: Tensor) -> GeneVAEModule:
        s = self.settings
        grid = self._grid()
        return GeneVAEModule(
            depth,
            likelihood=s["likelihood"],
            n_latent=s["n_latent"],
            seeds=[s["seed"] + m for m in range(s["n_seeds"])],
            make_member=member_maker(s, self.frame.coordinates, grid),
            grid=grid,
        )

    def _trial_module(self, depth: Tensor, coordinates: np.ndarray, width: float) -> GeneVAEModule:
        """One fully connected member with the negative binomial, to choose the filter's width by."""
        s = {**self.settings, "smoothing": width, "likelihood": "nb"}
        return GeneVAEModule(depth, "nb", s["n_latent"], [s["seed"]], member_maker(s, coordinates, None))

    def _place(self, adata: AnnData) -> tuple[np.ndarray, tuple[int, int]]:
        """Cells of the model's spots, and the grid's shape."""
        if self.sections is not None:
            return place_cells(self.sections.frame)
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

    def describe(self) -> dict[str, Any]:
        """Settings and numbers of genes, as plain values that an AnnData can hold."""
        seen = self.reader.gene_totals > 0
        settings = {k: v for k, v in self.settings.items() if k != "grid"}
        if "grid" in self.settings:
            settings |= dict(zip(("grid_rows", "grid_columns"), self.settings["grid"]["shape"], strict=True))
        made = {
            **settings,
            "n_genes_trained": len(self.trained_genes),
            "n_genes_embedded_only": int(np.delete(seen, self.trained_genes).sum()),
            "n_genes_without_counts": int((~seen).sum()),
            "n_spots": self.reader.n_spots,
            "n_spots_without_counts": int(self.reader.n_all_spots - self.reader.n_spots),
        }
        if self.sections is not None:
            made |= {
                "n_sections": len(self.sections.names),
                "n_places": self.samples.n_spots,
                "n_samples_trained": len(self.trained_samples),
            }
        return made

    def _summary(self) -> str:
        s = self.describe()
        return (
            f"{type(self).__name__}: {s['n_seeds']} member(s), {s['encoder']} encoder, {s['likelihood']} likelihood, "
            f"{s['n_latent']} latents, smoothing {s['smoothing']}\n"
            f"{s['n_genes_trained']} genes trained on, {s['n_genes_embedded_only']} with fewer than {s['min_counts']} "
            f"counts embedded only, {s['n_genes_without_counts']} without a count (NaN); {s['n_spots']} spots"
            + (
                f" of {s['n_sections']} sections on {s['n_places']} places, {s['n_samples_trained']} samples"
                if self.sections
                else ""
            )
        )
