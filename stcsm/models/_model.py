"""GeneVAE: each gene is a sample, the spots are its features."""

from __future__ import annotations

import importlib
import inspect
import logging
from html import escape
from pathlib import Path
from typing import Any, Literal, Self, overload

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi.model.base import BaseModelClass
from torch import Tensor, nn

from stcsm import _keys
from stcsm.models import _io, _latents, published
from stcsm.models._batches import GeneDataModule, losses
from stcsm.models._checkpoint import TrainingState, interruptible, refuse_processes, training_of
from stcsm.models._counts import GeneReader
from stcsm.models._module import GeneVAEModule, build_module
from stcsm.models._setup import (
    FULL,
    Setup,
    check_anndata,
    check_settings,
    choose_encoder,
    most_features,
    read_setup,
    register,
    say_what_is_left_out,
    write_setup,
)
from stcsm.models._tissue import Sections, Tissue, find_sections, grid_cells
from stcsm.models._training import (
    OneCyclePlan,
    choose_smoothing,
    fit,
    make_schedule,
    require_training_memory,
)
from stcsm.nets import SpotGrid, own_settings
from stcsm.space import require_memory

logger = logging.getLogger(__name__)


class GeneVAE(BaseModelClass):
    """Variational autoencoder of gene profiles over the spots of a tissue.

    The input of gene g at spot s is ``u_gs = log1p(x_gs / (n_g d_s + 1/2))``, with n_g the gene's counts and d_s the
    share of all counts that falls on the spot, so that neither a gene's abundance nor a spot's depth is a signal. The
    decoder's mean is ``n_g softmax_s(f(z) + log d_s)``; the loss is the negative ELBO (Kingma & Welling 2014).

    Of several sections (``setup_anndata(adata, batch_key=...)``) a sample is a gene in one section, and its features
    are the array positions that all sections share; n_g and d_s are then those of its section.

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
        nearest-neighbour distances; 0 is none. ``"auto"``: of 0, 0.5, 1 and 2 the one with which principal components
        predict held-out counts best, chosen when :meth:`train` is called; none until then.
    n_hidden
        Units of the hidden network layers.
    resolution
        What the encoder and the decoder see of a large section: at most so many features, each the summed counts of a
        few neighbouring spots (blocks of array positions, or cells of a k-d tree over the coordinates; of several
        sections the same for all). ``"auto"``: 20,000; ``"full"``: every spot is a feature, as it is in any section
        with fewer. Maps are brought back to the spots. A convolutional model has its grid's cells as features.
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

    # scvi-tools' base class gives what its users know: the registry of the setup and its table, `history`, `trainer`,
    # `device` and `to_device`, `is_trained` and the warning of an untrained model, `summary_string`, and the attributes
    # that its TrainRunner sets. It is given a shell (names, coordinates, sections), never the user's AnnData.

    # What a kind of model is made of; PublishedVAE has its own.
    _grid_cells = staticmethod(grid_cells)
    _build_module = staticmethod(build_module)
    _make_schedule = staticmethod(make_schedule)
    _plan: type[OneCyclePlan] = OneCyclePlan

    module: GeneVAEModule

    @own_settings()
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
        resolution: int | str = "auto",
        seed: int | None = None,
    ):
        settings: dict[str, Any] = {
            "encoder": encoder,
            "likelihood": likelihood,
            "n_latent": n_latent,
            "n_seeds": n_seeds,
            "min_counts": min_counts,
            "smoothing": smoothing,
            "n_hidden": n_hidden,
            "resolution": resolution,
            "seed": seed if seed is not None else scvi.settings.seed or 0,
        }
        check_settings(settings)
        settings["encoder"] = choose_encoder(encoder)
        setup = read_setup(adata)
        check_anndata(adata, setup)  # the counts may have been normalised since
        find_sections(adata, setup)  # checks spots without counts too
        tissue = Tissue(adata, setup)
        most = most_features(settings["encoder"], settings["resolution"])
        if most is not None:
            tissue.pool_to(most)
        settings["resolution"] = FULL if tissue.pool is None else most
        if settings["encoder"] == "conv":
            cells, shape = self._grid_cells(adata, tissue)
            settings["grid"] = {"shape": list(shape), "cells": cells.tolist()}
        samples = _well_counted(tissue, settings)
        if len(samples) < 2:
            raise ValueError(
                f"Expected at least 2 genes with {min_counts} counts or more to train on, found "
                f"{len(samples)} of {adata.n_vars}; lower min_counts"
            )
        self._compose(adata, tissue, settings, samples)
        logger.info(self._model_summary_string)
        empty = adata.n_obs - tissue.n_beside - self.reader.n_spots
        if empty:
            logger.warning(
                f"{empty} of {adata.n_obs} spots have no count; they are left out of the model, and maps are NaN there"
            )

    @classmethod
    def _of_parts(cls, *parts: Any, **more: Any) -> Self:
        """Alternate constructor: a model of parts that are known already, as those of a saved model are."""
        model = cls.__new__(cls)
        model._compose(*parts, **more)
        return model

    def _compose(
        self,
        adata: AnnData,
        tissue: Tissue,
        settings: dict[str, Any],
        trained_samples: np.ndarray,
        trained_genes: np.ndarray | None = None,
        depth: Tensor | None = None,
    ) -> None:
        """Compose a model of its parts; every model is made here.

        Parameters
        ----------
        adata, tissue, settings
            The user's AnnData, what the model knows of it, and checked settings.
        trained_samples
            Samples that are trained on.
        trained_genes
            Their genes, where they are not simply those of the samples.
        depth
            Depths that the module has; by default those of the tissue.
        """
        super().__init__(register(type(self), adata, tissue.setup))
        self._user_adata = adata
        self._tissue = tissue
        self._hashed: tuple[Any, str] | None = None
        self._trained_by: dict[str, str] | None = None
        self.settings = settings
        self.trained_samples = trained_samples
        genes = np.unique(trained_samples % tissue.reader.n_genes)
        self.trained_genes = genes if trained_genes is None else trained_genes
        self.module = self._new_module(_depth(tissue) if depth is None else depth)
        self._model_summary_string = self._summary()

    def _new_module(self, depth: Tensor, **settings: Any) -> GeneVAEModule:
        """Build a module with new weights; ``settings`` stand in for those of the model."""
        if self.settings["encoder"] == "mlp":
            n, h, m = self.samples.n_spots, self.settings["n_hidden"], self.settings["n_seeds"]
            require_memory(
                4.0 * m * n * (2 * h + 2),
                f"{m} members x {n} {'features' if self.is_pooled else 'spots'} x {2 * h + 2} weights, 4 bytes each",
                f"lower n_hidden or n_seeds, or pool spots: resolution={n // 4}",
            )
        cells = self.settings.get("grid")
        grid = None if cells is None else SpotGrid(torch.as_tensor(cells["cells"]), tuple(cells["shape"]))
        return self._build_module(self.settings | settings, depth, self._tissue.feature_coordinates, grid)

    @staticmethod
    def published(adata: AnnData, seed: int | None = None) -> PublishedVAE:
        """Return the published model (Brocki & Chung 2019): see :class:`stcsm.models.PublishedVAE`.

        ``adata`` is set up with the defaults of :meth:`setup_anndata` where it is not.
        """
        if not isinstance(adata, AnnData) or "setup" not in adata.uns.get(_keys.UNS, {}):
            GeneVAE.setup_anndata(adata)
        return PublishedVAE(adata, seed=seed)

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        layer: str | None = None,
        spatial_key: str = "spatial",
        batch_key: str | None = None,
        *,
        one_section: bool = False,
        keep_background: bool = False,
        keep_controls: bool = False,
    ) -> None:
        """Check ``adata`` and record where its counts and coordinates are.

        Only ``adata.uns["stcsm"]["setup"]`` is written. Names of spots and genes of other types (numbers, categories,
        nullable text) become text in ``adata.obs_names`` and ``adata.var_names``, and the log says so.

        Parameters
        ----------
        adata
            Spots x genes with raw counts.
        layer
            Layer of the counts; None is ``adata.X``, ``"raw"`` is ``adata.raw.X`` at the genes of ``adata`` (unless a
            layer is called so).
        spatial_key
            Key of the coordinates in ``adata.obsm``, (n_spots, 2 or 3).
        batch_key
            Column of ``adata.obs`` that names each spot's section, where there are several (replicates). They have to
            share their array positions: equal rows and columns (``adata.obs["array_row"]`` and ``["array_col"]``, see
            :func:`stcsm.pp.to_grid`), or, where these are absent, equal coordinates.
        one_section
            Take the spots for one section, even where they look like several that lie over one another.
        keep_background
            Take spots beside the tissue (``adata.obs["in_tissue"]`` 0), which are left out otherwise: maps are NaN
            there.
        keep_controls
            Take features that are no genes, which are left out otherwise, as genes without counts are: those that
            ``adata.var["feature_types"]`` calls something else than Gene Expression, and blank and negative-control
            probes by name.

        Warns
        -----
        UserWarning
            Spots beside the tissue, features that are no genes, or genes that only ``adata.raw`` has are left out.

        Raises
        ------
        TypeError
            If ``adata`` is not an AnnData.
        ValueError
            If it is empty, has duplicate names, no coordinates, or values that are not counts (negative, fractional,
            NaN, log-normalised: the message says where and how many); or if a spot has no section, two spots of a
            section have one array position, or a section has fewer than half of its positions in common with the
            others; or, without ``batch_key``, if the spots are those of several sections that lie over one another,
            share their array positions or are on slides of their own (the message names the column that tells them
            apart).
        """
        setup = Setup(layer, spatial_key, batch_key, one_section, keep_background, keep_controls)
        check_anndata(adata, setup)
        find_sections(adata, setup)
        say_what_is_left_out(adata, setup)
        write_setup(adata, setup)

    @own_settings()
    def train(
        self,
        max_epochs: int | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        early_stopping: bool = False,
        held_out: float = 0.1,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        progress: bool = True,
        plan_kwargs: dict[str, Any] | None = None,
        checkpoint: str | Path | None = None,
        keep_checkpoint: bool = False,
        **trainer_kwargs: Any,
    ) -> None:
        """Train all members, through scvi-tools' plan and runner.

        Every gene with ``min_counts`` counts is trained on, in each section where it has them; none is held out. With
        ``smoothing="auto"`` held-out counts choose the width of the spatial filter first.

        Parameters
        ----------
        max_epochs
            Passes over the genes; by default 450,000 divided by their number, at least 40 and at most 50, or, where
            these are fewer than 400 steps, up to 100. The published model: 10.
        lr
            Highest learning rate of the one-cycle schedule; by default 0.002, or, where a fully connected encoder is
            trained on 5,000 genes or more (each section's counted), 0.012 for batches of 256 or more and in proportion
            for smaller ones, at least 0.002. The published model: 0.0005, constant.
        batch_size
            Genes a batch; by default 64 where fewer than 2,000 genes are trained on; 256 where a fully connected
            encoder is trained on 5,000 or more (each section's counted), at up to 65,536 spots; otherwise 128. The
            published model: 64.
        early_stopping
            Hold out ``held_out`` of every gene's counts (binomial thinning) and stop when their ELBO stops improving.
        held_out
            Share of the counts held out for early stopping; not used without it.
        accelerator, devices
            Passed to Lightning; ``"auto"`` takes a GPU where there is one.
        progress
            Show a progress bar.
        plan_kwargs
            Passed to the training plan: ``weight_decay`` (0.1), ``kl_warmup`` (share of the steps over which the KL
            weight rises; 0.3, or 0.45 where a fully connected encoder is trained on 5,000 genes or more), and those of
            :class:`scvi.train.TrainingPlan` that the plan does not set itself. ``lr`` may stand here instead of above,
            as in scvi-tools.
        checkpoint
            File that holds the state of the training, so that one that is interrupted goes on: train a new model of the
            same data and settings with the same arguments. Nothing but the unfinished epoch (or, where epochs are
            shorter, the last ten seconds) is trained again, and the weights are those of an undisturbed training. It is
            removed at the end.
        keep_checkpoint
            Leave the file; a new model takes the trained weights from it, then, and trains no more.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If a setting is out of range, ``plan_kwargs`` has one that the plan does not take, or ``checkpoint`` holds
            the state of another training; it cannot be had for a training in several processes.
        MemoryError
            If parameters and a batch do not fit the free memory.
        """
        plan_kwargs = dict(plan_kwargs or {})
        self._plan.check_kwargs(plan_kwargs, list(inspect.signature(GeneVAE.train).parameters))
        if "lr" in plan_kwargs:
            if lr is not None:
                raise ValueError(
                    f"Expected the learning rate once, found lr={lr} and {plan_kwargs['lr']} in plan_kwargs"
                )
            lr = plan_kwargs.pop("lr")
        if (batch_size is not None and batch_size < 1) or not 0 < held_out < 1:
            raise ValueError(
                f"Expected batch_size of 1 or more and held_out between 0 and 1, found {batch_size} and {held_out}"
            )
        settings, samples, chosen = self.settings, self.samples, self.trained_samples
        schedule = self._make_schedule(settings["encoder"], len(chosen), samples.n_spots, max_epochs, lr, batch_size)
        require_training_memory(self.module, schedule.batch_size, samples.n_spots)
        plan_kwargs = schedule.plan_kwargs | plan_kwargs
        share = held_out if early_stopping else 0.0
        training = {"class": type(self).__name__, "schedule": str(schedule), "held_out": share}
        training |= {"plan": str(sorted(plan_kwargs.items())), **trainer_kwargs}
        of = training_of(self._tissue, settings, chosen, self.fingerprint(), **training)
        state = None
        if checkpoint is not None:
            refuse_processes(devices, trainer_kwargs)
            state = TrainingState(checkpoint, of)
        data = GeneDataModule(samples, chosen, schedule.batch_size, settings["seed"], share)
        if settings["smoothing"] == "auto":
            if state is not None and state.found is not None:
                self._set_smoothing(state.smoothing)
            else:
                self._choose_smoothing()
        if state is not None and state.is_complete:
            self.module.load_state_dict(state.weights())
            self.module.eval()
            self.history_, self.is_trained_ = state.history(), True
        else:
            if state is not None:
                state.smoothing = settings["smoothing"]
                trainer_kwargs = state.trainer_kwargs(trainer_kwargs)
            with interruptible():
                fit(
                    self,
                    self._plan(self.module, **plan_kwargs),
                    data,
                    schedule,
                    accelerator=accelerator,
                    devices=devices,
                    early_stopping=early_stopping,
                    progress=progress,
                    **trainer_kwargs,
                )
        self._trained_by = of
        if state is not None and not keep_checkpoint:
            state.remove()
        _latents.warn_of_disagreement(self.section_agreement())

    def _choose_smoothing(self) -> None:
        """Choose the width of the spatial filter and rebuild the module with it."""
        width = choose_smoothing(
            self.samples,
            self.trained_samples,
            self._tissue.feature_coordinates,
            n_latent=self.settings["n_latent"],
            seed=self.settings["seed"],
        )
        self._set_smoothing(width)

    def _set_smoothing(self, width: float) -> None:
        """Rebuild the module with a width of the spatial filter."""
        self.settings["smoothing"] = width
        self.module = self._new_module(self.module.depth.cpu())
        self._model_summary_string = self._summary()

    @own_settings()
    def fingerprint(self) -> str:
        """Short hash of the weights: two models with the same fingerprint give the same embedding.

        Computed once per state of the weights, and again after training, loading or any change of them in place.
        """
        state = _io.weights_state(self.module)
        if self._hashed is None or self._hashed[0] != state:
            self._hashed = state, _io.hash_weights(self.module, self._tissue.pool)
        return self._hashed[1]

    @own_settings()
    def save(self, dir_path: str | Path, overwrite: bool = False) -> None:
        """Write weights (safetensors) and settings (JSON) into a folder, whole or not at all.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds anything but a model.
        """
        _io.write_saved(
            dir_path,
            type(self).__name__,
            self.module,
            self._tissue,
            self.settings,
            self.trained_genes,
            self._trained_by if self.is_trained_ else None,
            self.is_trained_,
            overwrite,
        )

    @classmethod
    @own_settings()
    def load(cls, dir_path: str | Path, adata: AnnData, accelerator: str = "auto", *, match: str = "spots") -> Self:
        """Read a model that :meth:`save` wrote; no code is unpickled.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            The AnnData it was trained on, or another with the same spots in the same order; with ``match="positions"``
            another section.
        accelerator
            ``"auto"`` takes a GPU where there is one.
        match
            ``"spots"``: the spots have to be the model's. ``"positions"``: apply the model to another section (or
            several, where ``adata`` was set up with a batch key) on the same grid. Spots are matched to the model's
            array positions by row and column (or by equal coordinates, where the model was trained without them).
            Positions that the section lacks are zero in the input; spots with no position of the model are left out,
            and maps are NaN there. Genes may be others: a gene is a sample, not a feature.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If its files are damaged, if ``adata`` has other spots, or, with ``match="positions"``, if fewer than half
            of the positions are in common, or a section has no gene with ``min_counts`` counts.
        """
        if match not in ("spots", "positions"):
            raise ValueError(f"Expected match to be 'spots' or 'positions', found {match!r}")
        saved = _io.read_saved(dir_path)
        kind: Any = PublishedVAE if saved.kind == PublishedVAE.__name__ else cls
        settings, least = saved.settings, saved.settings["min_counts"]
        if match == "positions":
            tissue = saved.on_other_section(adata)
            samples = _well_counted(tissue, settings)
            _io.check_faint(tissue, samples, least, len(saved.trained_genes))
            model = kind._of_parts(adata, tissue, settings, samples)
        else:
            tissue, genes = saved.on_its_spots(adata)
            samples = genes
            if tissue.sections is not None:
                samples = _well_counted(tissue, settings)
                samples = samples[np.isin(samples % tissue.reader.n_genes, genes)]
            model = kind._of_parts(adata, tissue, settings, samples, genes, saved.weights["depth"])
        saved.load_into(model.module, own_depth=match == "positions")
        model.is_trained_, model._trained_by = saved.is_trained, saved.training
        # The Bernoulli likelihood shares no counts out, so it has no prediction to compare with depth.
        if match == "positions" and saved.is_trained and settings["likelihood"] != "bernoulli":
            _io.warn_of_misfit(model.module, tissue, samples, int(settings["seed"]))
        if accelerator != "cpu" and torch.cuda.is_available():
            model.module.to("cuda:0")
        return model

    @property
    def adata(self) -> AnnData:
        """The user's AnnData."""
        return self._user_adata

    @property
    def setup(self) -> Setup:
        """Where the AnnData holds counts, coordinates and sections."""
        return self._tissue.setup

    @property
    def reader(self) -> GeneReader:
        """Counts of genes over :attr:`spots`."""
        return self._tissue.reader

    @property
    def samples(self) -> GeneReader:
        """Counts of what is trained on: genes, or genes in one section each, over the features of the model.

        A feature is a spot, of several sections an array position, or where these are pooled (``resolution``) the sum
        of some neighbouring ones; ``n_spots`` is the number of features.
        """
        return self._tissue.samples

    @property
    def sections(self) -> Sections | None:
        """Sections and array positions of :attr:`spots`; None where there is one section."""
        return self._tissue.sections

    @property
    def section_names(self) -> tuple[str, ...]:
        """Names of the sections; empty where no column names them."""
        return self._tissue.section_names

    @property
    def spot_names(self) -> pd.Index:
        """Names (S,) of the spots of the AnnData, as they were when the model was made."""
        return self._tissue.spot_names

    @property
    def gene_names(self) -> pd.Index:
        """Names (G,) of the genes of the AnnData, as they were when the model was made."""
        return self._tissue.gene_names

    @property
    def spots(self) -> np.ndarray:
        """Indices (S',) of the spots that the model knows: those with a count, at an array position of the model."""
        return self._tissue.reader.spots

    @property
    def coordinates(self) -> np.ndarray:
        """Coordinates of :attr:`spots`, (S', 2 or 3), as they were when the model was made.

        Of several sections, those of their array positions.
        """
        return self._tissue.coordinates

    @property
    def n_members(self) -> int:
        """Members of the ensemble."""
        return self.settings["n_seeds"]

    @property
    def encoders(self) -> list[nn.Module]:
        """Encoder of every member."""
        return [self.module.member(m).encoder for m in range(self.n_members)]

    @property
    def encoder(self) -> nn.Module:
        """Encoder of the first member: inputs to posterior means (N, L)."""
        return self.encoders[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoder input: (F,) over the features (see :attr:`samples`), or (1, H, W)."""
        grid = self.settings.get("grid")
        return (self.samples.n_spots,) if grid is None else (1, *grid["shape"])

    def parts(self) -> list[tuple[str | None, Any]]:
        """Parts of the tissue that have inputs of their own: name of a section, and which of :attr:`spots` are its.

        A model of one section has one part, None, which is all spots.
        """
        return self._tissue.parts()

    def section_totals(self, section: str | None = None) -> np.ndarray:
        """Counts of each gene (G,) in a section; None is all sections together."""
        return self._tissue.section_totals(section)

    def expected_counts(self, genes: np.ndarray, spots: np.ndarray | None = None) -> np.ndarray:
        """Counts (n, S') that genes would have if they followed depth alone: n_g d_s, within each section.

        With ``spots`` (n,) among the model's, those of each gene at its spot, (n,).
        """
        return self._tissue.expected_counts(genes, spots)

    @own_settings()
    def inputs(self, genes: Any = None, section: str | None = None) -> Tensor:
        """Encoder inputs of some genes.

        Parameters
        ----------
        genes
            Gene names or indices; None is all genes.
        section
            Section whose counts are taken; required where the model has several sections.

        Returns
        -------
        On the CPU: (n, S') with S' spots with at least one count, see :attr:`spots`; of several sections (n, P) over
        the array positions of all, zero where this one has no spot; (n, F) over features where these are pooled;
        images (n, 1, H, W) where the encoder is convolutional.

        Raises
        ------
        ValueError
            If a gene or section is unknown, or the model has several sections and none is named.
        """
        index, b = self._tissue.gene_index(genes), self._tissue.section_index(section)
        if b is None and self.sections is not None:
            raise ValueError(
                f"Expected the section whose counts are taken, found none; pass section=, one of {self.section_names}"
            )
        return _latents.encoder_inputs(self.module, self.samples, index + (b or 0) * self.reader.n_genes).cpu()

    def maps_to_spots(self, maps: np.ndarray, section: str | None = None) -> np.ndarray:
        """Bring maps over encoder inputs, (..., S'), (..., P), (..., F) or (..., 1, H, W), to the spots, (..., S').

        Spots of one feature get one value: those that are pooled or share a cell of the grid, and those of several
        sections at one array position. It is right for gradients (a count adds as much to its feature at whichever spot
        it is) and for the decoder's output, which is relative to depth; see :meth:`shares_at_spots` for others.

        Parameters
        ----------
        maps
            The maps.
        section
            Return only the spots of that section, in the order of :meth:`parts`.

        Raises
        ------
        ValueError
            If the maps are of another shape.
        """
        b, shape = self._tissue.section_index(section), self.input_shape
        if maps.shape[maps.ndim - len(shape) :] != shape:
            raise ValueError(f"Expected maps of shape (..., {', '.join(map(str, shape))}), found {maps.shape}")
        if len(shape) > 1:
            maps = maps.reshape(*maps.shape[: maps.ndim - 3], -1)[..., np.asarray(self.settings["grid"]["cells"])]
        return self._tissue.to_spots(maps, b)

    def shares_at_spots(
        self, maps: np.ndarray, genes: np.ndarray, section: str | None = None, summed: bool = False
    ) -> np.ndarray:
        """Bring attributions that add up, (n, ..., F) of n genes, to the spots: their sum over spots stays the same.

        The value of a pooled feature is divided among its spots in proportion to their counts of the gene, and to their
        depth where it has none. Without pooling it is :meth:`maps_to_spots`.

        Parameters
        ----------
        maps
            The attributions.
        genes
            Indices (n,) of their genes.
        section
            Section of these profiles; return its spots only.
        summed
            Return the sum over the genes, (..., S').
        """
        b = self._tissue.section_index(section)
        pool = self._tissue.spot_pool(b)
        if pool is None:
            at_spots = self.maps_to_spots(maps, section)
            return at_spots.sum(axis=0) if summed else at_spots
        counts, depth = self._tissue.spot_counts(genes, b), self._tissue.spot_depth(b)
        return (pool.divided_sum if summed else pool.divide)(maps, counts, depth)

    def to_features(self, values: np.ndarray) -> np.ndarray:
        """Add up values (..., S') at the spots of a model of one section over its features, (..., F)."""
        pool = self._tissue.pool
        return values if pool is None else pool.sums(values)

    @property
    def is_pooled(self) -> bool:
        """Whether a feature may be the sum of several spots (``resolution``)."""
        return self._tissue.pool is not None

    def to_all_spots(self, maps: np.ndarray, counted: bool = False) -> np.ndarray:
        """Bring maps over the model's spots (..., S') to all spots (..., S), NaN where the model knows none.

        A model may be loaded on spots of which some have lost their counts; with ``counted`` those are NaN too.
        """
        return self._tissue.to_all_spots(maps, counted)

    @overload
    def get_latent_representation(
        self, give_var: Literal[False] = False, member: int = 0, section: str | None = None
    ) -> np.ndarray: ...

    @overload
    def get_latent_representation(
        self, give_var: Literal[True], member: int = 0, section: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...

    @own_settings()
    def get_latent_representation(
        self, give_var: bool = False, member: int = 0, section: str | None = None
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Posterior mean of every gene.

        Parameters
        ----------
        give_var
            Return the posterior variance too.
        member
            Member of the ensemble.
        section
            Section whose counts alone are encoded. None: of several sections, the mean of a gene's sections, weighted
            by its counts in each. A posterior is the narrower the more counts it rests on, so these weights are close
            to those of precision; being the same for every latent, they make the score of a gene on a concept the same
            mean of its scores in the sections. The variance is that of this mean.

        Returns
        -------
        (G, L), or two of them; NaN for genes without a count.

        Raises
        ------
        ValueError
            If there is no such member or section.
        """
        self._check_if_trained(warn=True)
        self._check_member(member)
        index = self._tissue.section_index(section)
        mean, var = _latents.encode_genes(self.module, self._tissue, member, index)
        return (mean, var) if give_var else mean

    @own_settings()
    def section_agreement(self) -> dict[tuple[str, str], float]:
        """Correlation of where genes lie in latent space, between every two sections.

        Genes with 50 counts or more in both are compared (first member), at most the 1,000 of most counts; two sections
        with fewer than 20 of them are left out. Training warns where it is low: the sections are not registered.
        """
        self._check_if_trained(warn=True)
        return _latents.section_agreement(self.module, self._tissue)

    @own_settings()
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
        (N, S) over all spots, NaN where a spot has no count; spots of several sections at one array position get one
        value. A constant a row is free (the soft-max removes it).

        Raises
        ------
        ValueError
            If ``z`` is not of shape (N, L), or there is no such member.
        """
        z = self._check_latents(z, member)
        f = self.module.at_spots(self.module.member(member).decoder(z)).cpu().numpy()
        return self.to_all_spots(self._tissue.to_spots(f))

    def _check_latents(self, z: np.ndarray | Tensor, member: int) -> Tensor:
        """Return latents on the model's device; the module is in evaluation mode then."""
        self._check_member(member)
        z = torch.as_tensor(np.asarray(z), dtype=torch.float32, device="cpu")
        if z.ndim != 2 or z.shape[1] != self.settings["n_latent"]:
            raise ValueError(f"Expected latents of shape (N, {self.settings['n_latent']}), found {tuple(z.shape)}")
        self.module.eval()
        return z.to(self.device)

    def _check_member(self, member: int) -> None:
        if not 0 <= member < self.n_members:
            raise ValueError(f"Expected a member from 0 to {self.n_members - 1}, found {member}")

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
            Return the mean over genes; otherwise an array, of several sections section by section.
        held_out
            Share of the counts that is held out; 0 scores the very counts that are encoded.
        seed
            Seed of the thinning; by default the model's.

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

    @own_settings()
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
            asked = self._tissue.samples_of_genes(self._tissue.gene_index(genes))
            chosen = asked[np.isin(asked, chosen)]
        if not len(chosen):
            raise ValueError("Expected genes that the model was trained on, found none among those given")
        seed = self.settings["seed"] if seed is None else seed
        return losses(self.module, GeneDataModule(self.samples, chosen, batch_size or 128, seed, held_out))

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
        described = {k: v for k, v in self.settings.items() if k != "grid"}
        if "grid" in self.settings:
            described |= dict(zip(("grid_rows", "grid_columns"), self.settings["grid"]["shape"], strict=True))
        described |= {
            "n_genes_trained": len(self.trained_genes),
            "n_genes_embedded_only": int(np.delete(seen, self.trained_genes).sum()),
            "n_genes_without_counts": int((~seen & self._tissue.genes).sum()),
            "n_spots": self.reader.n_spots,
            "n_spots_without_counts": int(self.reader.n_all_spots - self._tissue.n_beside - self.reader.n_spots),
        }
        left_out = {"n_features_left_out": int((~self._tissue.genes).sum()), "n_spots_beside": self._tissue.n_beside}
        described |= {name: n for name, n in left_out.items() if n}
        if self.is_pooled:
            described["n_features"] = self.samples.n_spots
        if self.sections is not None:
            described |= {
                "n_sections": len(self.sections.names),
                "n_positions": self._tissue.at_positions.n_spots,
                "n_samples_trained": len(self.trained_samples),
            }
        return described

    def __repr__(self) -> str:
        return str(self.summary_string).strip()

    def _repr_html_(self) -> str:
        cells = [f"<td>{escape(str(k))}</td><td>{escape(str(v))}</td>" for k, v in self.describe().items()]
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        trained = "trained" if self.is_trained else "not trained"
        return f"<table><caption>{type(self).__name__}, {trained}</caption>{rows}</table>"

    def _summary(self) -> str:
        s = self.describe()
        return (
            f"{type(self).__name__}: {s['n_seeds']} member(s), {s['encoder']} encoder, {s['likelihood']} likelihood, "
            f"{s['n_latent']} latents, smoothing {s['smoothing']}\n"
            f"{s['n_genes_trained']} genes to train on, {s['n_genes_embedded_only']} with fewer than {s['min_counts']} "
            f"counts embedded only, {s['n_genes_without_counts']} without a count (NaN); {s['n_spots']} spots"
            + (
                f" of {s['n_sections']} sections at {s['n_positions']} array positions, {s['n_samples_trained']} "
                "samples"
                if self.sections
                else ""
            )
            + (f", pooled to {s['n_features']} features" if self.is_pooled else "")
        )


def _well_counted(tissue: Tissue, settings: dict[str, Any]) -> np.ndarray:
    """Samples with enough counts to be trained on."""
    return np.flatnonzero(tissue.samples.gene_totals >= settings["min_counts"])


def _depth(tissue: Tissue) -> Tensor:
    return torch.from_numpy(tissue.samples.depth.astype(np.float32))


class PublishedVAE(GeneVAE):
    """The published model, made by :meth:`GeneVAE.published`, so that published results can be reproduced.

    A gene is an image of 32 x 32 cells, its counts divided by their largest; three strided convolutions, two dense
    network layers, 20 latents, and a decoder that mirrors them, batch normalisation after each ReLU. The loss is the
    mean cross-entropy over all cells, on tissue or not, minus 0.5e-4 times the mean over latents of
    ``1 + log_var - mean^2 - exp(log_var)``, with draws of standard deviation ``exp(log_var)``. Initial weights are
    Keras's, the optimizer is Adam at 5e-4, and all genes with a count are trained on, 10 times in batches of 64;
    ``model.history["train_loss"]`` is the published loss.

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

    _grid_cells = staticmethod(published.published_grid)
    _build_module = staticmethod(published.published_module)
    _make_schedule = staticmethod(published.published_schedule)
    _plan = published.PublishedPlan

    def __init__(self, adata: AnnData, seed: int | None = None):
        super().__init__(adata, **published.SETTINGS, seed=seed)

    @own_settings()
    def load_published_weights(self, path: str | Path) -> None:
        """Load the weights of the original Keras model; the model then counts as trained.

        Parameters
        ----------
        path
            The HDF5 file that Keras 2 writes (``save_weights``, or ``save``), whose layers are taken by order, kind and
            shape; or an archive (.npz) with ``enc__<layer>__<weight>`` and ``dec__<layer>__<weight>`` under Keras's
            names. Axes of kernels: convolutions (height, width, in, out), transposed ones (height, width, out, in),
            dense network layers (in, out). Nothing is unpickled.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is no such file or is damaged, or an array is absent, not finite or of another shape; the model stays
            as it was.
        """
        member = self.module.member(0)
        published.read_published_weights(path, member.encoder, member.decoder)
        self.module.eval()
        self.is_trained_, self._trained_by = True, None

    def sampled_latents(self, seed: int = 0) -> np.ndarray:
        """One draw from every gene's posterior, (G, L): what the published code takes for a gene's latents.

        NaN for genes without a count. Two draws share few of a gene's nearest genes; the mean
        (:meth:`get_latent_representation`) does not have this noise.
        """
        mean, variance = self.get_latent_representation(give_var=True)
        noise = np.random.default_rng(seed).standard_normal(mean.shape, dtype=np.float32)
        return mean + np.sqrt(variance) * noise

    @own_settings()
    @torch.inference_mode()
    def decode_images(self, z: np.ndarray | Tensor) -> np.ndarray:
        """Decode latents (N, L) to images (N, 32, 32) of values between 0 and 1, as published."""
        z = self._check_latents(z, 0)
        return torch.sigmoid(self.module.member(0).decoder(z))[:, 0].cpu().numpy()
