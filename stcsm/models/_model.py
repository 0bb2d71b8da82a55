"""GeneVAE: each gene is a sample, the spots are its features."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from scvi.data import AnnDataManager
from scvi.data.fields import ObsmField
from scvi.model.base import BaseModelClass
from scvi.train import TrainRunner
from torch import Tensor, nn

from stcsm.models._data import GeneDataModule
from stcsm.models._module import LIKELIHOODS, GeneVAEModule
from stcsm.models._plan import OneCyclePlan
from stcsm.models._reader import GeneReader
from stcsm.models._save import read_model, write_model
from stcsm.models._setup import Setup, check_anndata, check_coordinates, counts_matrix, read_setup, write_setup
from stcsm.nets._mlp import SpatialFilter
from stcsm.space import spatial_filter

logger = logging.getLogger(__name__)

ENCODERS = ("auto", "mlp")
ENCODE_BATCH = 512
"""Genes encoded together; fixed, so that results cannot depend on it."""


class GeneVAE(BaseModelClass):
    """Variational autoencoder of gene profiles over the spots of a tissue.

    The input of gene g at spot s is ``u_gs = log1p(x_gs / (n_g d_s + 1/2))``, with n_g the gene's counts and d_s the
    share of all counts that fall on the spot, so that neither a gene's abundance nor a spot's depth is a signal. The
    decoder's mean is ``n_g softmax_s(f(z) + log d_s)``; the loss is the negative ELBO (Kingma & Welling 2014).

    Parameters
    ----------
    adata
        Spots x genes, set up with :meth:`setup_anndata`. It is neither changed nor copied.
    encoder
        ``"mlp"``: fully connected over the spots. ``"auto"`` takes it.
    likelihood
        ``"nb"``: negative binomial with a dispersion for each spot; ``"multinomial"``.
    n_latent
        Size L of the latent space.
    n_seeds
        Members of the ensemble, trained side by side from different seeds.
    min_counts
        Genes with fewer counts are not trained on, but embedded if they have any.
    smoothing
        Width of a Gaussian filter over neighbouring spots, before the encoder and after the decoder, in median
        nearest-neighbour distances; 0 is none.
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
        smoothing: float = 0.0,
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
            "seed": int(seed if seed is not None else scvi.settings.seed or 0),
        }
        _check_settings(settings)
        setup = read_setup(adata)
        self._attach(adata, setup, settings)
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
        manager.register_fields(shell)
        self.register_manager(manager)
        super().__init__(shell)
        self._user_adata = adata
        self.setup = setup
        self.settings = settings

    @classmethod
    def setup_anndata(cls, adata: AnnData, layer: str | None = None, spatial_key: str = "spatial", **_: Any) -> None:
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
        return GeneVAEModule(
            depth,
            likelihood=s["likelihood"],
            n_hidden=s["n_hidden"],
            n_latent=s["n_latent"],
            seeds=[s["seed"] + m for m in range(s["n_seeds"])],
            spatial_filter=self._spatial_filter(s["smoothing"]),
        )

    def _spatial_filter(self, width: float) -> SpatialFilter | None:
        if width == 0:
            return None
        coordinates = np.asarray(self._adata.obsm[self.setup.spatial_key])[self.reader.spots]
        return SpatialFilter(spatial_filter(coordinates, width))

    @property
    def adata(self) -> AnnData:
        """The user's AnnData."""
        return self._user_adata

    @property
    def n_members(self) -> int:
        """Members of the ensemble."""
        return self.settings["n_seeds"]

    @property
    def encoder(self) -> nn.Module:
        """Encoder of the first member: inputs (N, S') to posterior means (N, L)."""
        return self.encoders[0]

    @property
    def encoders(self) -> list[nn.Module]:
        """Encoder of every member."""
        return [self.module.member(m).encoder for m in range(self.n_members)]

    @property
    def spots(self) -> np.ndarray:
        """Indices (S',) of the spots that the model knows: those with at least one count."""
        return self.reader.spots

    def train(
        self,
        max_epochs: int | None = None,
        lr: float = 2e-3,
        batch_size: int | None = None,
        early_stopping: bool = False,
        held_out: float = 0.1,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        progress: bool = True,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train all members, through scvi-tools' plan and runner.

        Every gene with ``min_counts`` counts is trained on; none is held out.

        Parameters
        ----------
        max_epochs
            Passes over the genes; by default as many as make about 3,500 steps, at least 40 and at most 100.
        lr
            Highest learning rate of the one-cycle schedule.
        batch_size
            Genes a batch; by default 128, or 64 where fewer than 2,000 genes are trained on.
        early_stopping
            Keep ``held_out`` of every gene's counts aside (binomial thinning) and stop when their ELBO stops improving.
        held_out
            Share of the counts kept aside for early stopping; not used without it.
        accelerator, devices
            Passed to Lightning; ``"auto"`` takes a GPU where there is one.
        progress
            Show a progress bar.
        plan_kwargs
            Passed to the training plan (``weight_decay``, ``kl_warmup``, ...).
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`.

        Raises
        ------
        ValueError
            If a setting is out of range.
        """
        n = len(self.trained_genes)
        batch_size = batch_size or (128 if n >= 2000 else 64)
        if batch_size < 1 or not 0 < held_out < 1:
            raise ValueError(
                f"Expected batch_size of 1 or more and held_out between 0 and 1, found {batch_size} and {held_out}"
            )
        data = GeneDataModule(
            self.reader, self.trained_genes, batch_size, self.settings["seed"], held_out if early_stopping else 0.0
        )
        if max_epochs is None:
            max_epochs = int(np.clip(round(3500 / data.steps_per_epoch), 40, 100))
        plan = OneCyclePlan(self.module, total_steps=max_epochs * data.steps_per_epoch, lr=lr, **(plan_kwargs or {}))
        if early_stopping:
            trainer_kwargs.setdefault("early_stopping_patience", 10)
        self.module.reset_noise()
        # Data loaders draw from the global generator; what the user has seeded stays as it was.
        with torch.random.fork_rng(devices=[]):
            TrainRunner(
                self,
                training_plan=plan,
                data_splitter=data,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                enable_progress_bar=progress,
                **trainer_kwargs,
            )()

    def inputs(self, genes: Any = None) -> Tensor:
        """Encoder inputs of some genes.

        Parameters
        ----------
        genes
            Gene names or indices; None is all genes.

        Returns
        -------
        (n, S'), on the CPU: S' spots with at least one count, see :attr:`spots`.

        Raises
        ------
        ValueError
            If a name is unknown.
        """
        index = self._gene_index(genes)
        counts = torch.from_numpy(self.reader.profiles(index))
        totals = torch.from_numpy(self.reader.gene_totals[index].astype(np.float32))[:, None]
        return torch.log1p(counts / (totals * self.module.depth.cpu() + 0.5))

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
        if not 0 <= member < self.n_members:
            raise ValueError(f"Expected a member from 0 to {self.n_members - 1}, found {member}")
        self.module.eval()
        encoder = self.module.member(member).encoder
        shape = (self.reader.n_genes, self.settings["n_latent"])
        mean, var = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        genes = np.flatnonzero(self.reader.gene_totals > 0)
        for start in range(0, len(genes), ENCODE_BATCH):
            part = genes[start : start + ENCODE_BATCH]
            m, log_var = encoder.posterior(self.inputs(part).to(self.device))
            mean[part], var[part] = m.cpu().numpy(), log_var.exp().cpu().numpy()
        return (mean, var) if give_var else mean

    @torch.inference_mode()
    def decode(self, z: np.ndarray | Tensor, member: int = 0) -> np.ndarray:
        """Decoder output f(z): log of how much more a gene is found at a spot than the spot's depth says.

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
            If ``z`` is not of shape (N, L).
        """
        z = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if z.ndim != 2 or z.shape[1] != self.settings["n_latent"]:
            raise ValueError(f"Expected latents of shape (N, {self.settings['n_latent']}), found {tuple(z.shape)}")
        self.module.eval()
        return self.to_all_spots(self.module.member(member).decoder(z.to(self.device)).cpu().numpy())

    def to_all_spots(self, maps: np.ndarray) -> np.ndarray:
        """Bring maps over the model's spots (..., S') to all spots (..., S), NaN where a spot has no count."""
        full = np.full((*maps.shape[:-1], self.reader.n_all_spots), np.nan, dtype=maps.dtype)
        full[..., self.spots] = maps
        return full

    def describe(self) -> dict[str, Any]:
        """Settings and numbers of genes, as plain values that an AnnData can hold."""
        totals, few = self.reader.gene_totals, self.settings["min_counts"]
        return {
            **self.settings,
            "n_genes_trained": len(self.trained_genes),
            "n_genes_embedded_only": int(((totals > 0) & (totals < few)).sum()),
            "n_genes_without_counts": int((totals == 0).sum()),
            "n_spots": self.reader.n_spots,
            "n_spots_without_counts": int(self.reader.n_all_spots - self.reader.n_spots),
        }

    def fingerprint(self) -> str:
        """Short hash of the weights: two models with the same fingerprint give the same embedding."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, dir_path: str | Path, overwrite: bool = False, **_: Any) -> None:
        """Write weights (safetensors) and settings (JSON) into a folder, whole or not at all.

        Raises
        ------
        FileExistsError
            If the folder exists and ``overwrite`` is false, or if it holds anything but a model.
        """
        write_model(
            dir_path,
            self.module.state_dict(),
            {
                "class": type(self).__name__,
                "settings": self.settings,
                "setup": {"layer": self.setup.layer, "spatial_key": self.setup.spatial_key},
                "is_trained": self.is_trained_,
                "spots": self._adata.obs_names.tolist(),
                "model_spots": self.spots.tolist(),
                "trained_genes": self._adata.var_names[self.trained_genes].tolist(),
            },
            overwrite,
        )

    @classmethod
    def load(cls, dir_path: str | Path, adata: AnnData, accelerator: str = "auto", **_: Any) -> GeneVAE:
        """Read a model that :meth:`save` wrote; no code is unpickled.

        Parameters
        ----------
        dir_path
            The folder.
        adata
            The AnnData it was trained on, or another with the same spots in the same order.
        accelerator
            ``"auto"`` takes a GPU where there is one.

        Raises
        ------
        FileNotFoundError
            If there is no model.
        ValueError
            If its files are damaged, or if ``adata`` has other spots.
        """
        tensors, saved = read_model(dir_path)
        _check_same_spots(adata, saved["spots"])
        setup = Setup(**saved["setup"])
        check_anndata(adata, setup)
        model = cls.__new__(cls)
        model._attach(adata, setup, saved["settings"], np.asarray(saved["model_spots"], dtype=np.int64))
        model.trained_genes = np.flatnonzero(adata.var_names.isin(saved["trained_genes"]))
        model.module = model._build_module(tensors["depth"])
        model.module.load_state_dict(tensors)
        model.module.eval()
        model.is_trained_ = saved["is_trained"]
        model._model_summary_string = model._summary()
        if accelerator != "cpu" and torch.cuda.is_available():
            model.to_device("cuda:0")
        return model

    def _gene_index(self, genes: Any) -> np.ndarray:
        if genes is None:
            return np.arange(self.reader.n_genes)
        genes = np.atleast_1d(np.asarray(genes))
        if genes.dtype.kind in "iu":
            return genes
        index = self._adata.var_names.get_indexer(genes)
        if (index < 0).any():
            raise ValueError(f"Expected gene names of this AnnData, found {genes[index < 0][0]!r}")
        return index

    def _summary(self) -> str:
        s = self.describe()
        return (
            f"GeneVAE: {s['n_seeds']} member(s), {s['likelihood']} likelihood, {s['n_latent']} latents, "
            f"smoothing {s['smoothing']}\n{s['n_genes_trained']} genes trained on, {s['n_genes_embedded_only']} with "
            f"fewer than {s['min_counts']} counts embedded only, {s['n_genes_without_counts']} without a count (NaN); "
            f"{s['n_spots']} spots"
        )


def _check_settings(s: dict[str, Any]) -> None:
    if s["encoder"] not in ENCODERS:
        raise ValueError(f"Expected encoder to be one of {ENCODERS}, found {s['encoder']!r}")
    if s["likelihood"] not in LIKELIHOODS:
        raise ValueError(f"Expected likelihood to be one of {LIKELIHOODS}, found {s['likelihood']!r}")
    for name in ("n_latent", "n_seeds", "min_counts", "n_hidden"):
        if not isinstance(s[name], (int, np.integer)) or s[name] < 1:
            raise ValueError(f"Expected {name} to be a whole number of 1 or more, found {s[name]!r}")
        s[name] = int(s[name])
    if not np.isfinite(s["smoothing"]) or s["smoothing"] < 0:
        raise ValueError(f"Expected smoothing of 0 or more, found {s['smoothing']!r}")


def _check_same_spots(adata: AnnData, spots: list[str]) -> None:
    names = adata.obs_names
    if list(names) == spots:
        return
    common = len(names.intersection(spots))
    if common == len(spots) == len(names):
        raise ValueError(
            "Expected the spots in the order that the model was trained with, found another order; "
            "reorder them: adata = adata[model_spots].copy()"
        )
    raise ValueError(
        f"Expected the {len(spots)} spots that the model was trained on, found {len(names)} spots of which {common} "
        "are the same; a model is tied to its spots: train another for this section"
    )
