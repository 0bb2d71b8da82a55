"""What goes into a gene model and what comes out: inputs, latents, decoded profiles, and the way back to spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from stcsm.models._agreement import FEWEST, agreement, comparable_genes, pairs
from stcsm.models._module import GeneVAEModule
from stcsm.models._reader import GeneReader
from stcsm.models._sections import Frame, Sections

ENCODE_BATCH = 512
"""Genes encoded together, at most; fixed by the model alone, so that results cannot depend on it."""
ENCODE_VALUES = 2**24
"""Genes x spots encoded together."""


class ReadingMixin:
    """Inputs, latents and decoded profiles of a model that has a module, a reader of genes and one of samples."""

    module: GeneVAEModule
    reader: GeneReader
    samples: GeneReader
    sections: Sections | None
    frame: Frame
    section_names: tuple[str, ...]
    settings: dict[str, Any]

    if TYPE_CHECKING:  # what the model brings
        device: Any

        @property
        def gene_names(self) -> pd.Index: ...

        @property
        def n_members(self) -> int: ...

        def _check_if_trained(self, warn: bool = True) -> None: ...

    @property
    def spots(self) -> np.ndarray:
        """Indices (S',) of the spots that the model knows: those with at least one count, on a place of the model."""
        return self.reader.spots

    @property
    def coordinates(self) -> np.ndarray:
        """Of :attr:`spots`, (S', 2 or 3), as they were when the model was made; of sections, those of their places."""
        return self.frame.coordinates if self.sections is None else self.frame.coordinates[self.sections.place]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one encoder input: (S',), of several sections (P,) over their places, or (1, H, W)."""
        held = self.settings.get("grid")
        return (self.samples.n_spots,) if held is None else (1, *held["shape"])

    def parts(self) -> list[tuple[str | None, Any]]:
        """Parts of the tissue that have inputs of their own: names of sections, and which of :attr:`spots` are theirs.

        A model of one section has one part, None, which is all spots.
        """
        if self.sections is None:
            return [(None, slice(None))]
        return [(name, self.sections.spots(b)) for b, name in enumerate(self.sections.names)]

    def section_totals(self, section: str | None = None) -> np.ndarray:
        """Counts of each gene (G,) in a section; None is all sections together."""
        b = self._section_index(section)
        return self.reader.gene_totals if b is None else self.samples.gene_totals[self._samples_of(b)]

    def expected_counts(self, genes: np.ndarray) -> np.ndarray:
        """Counts (n, S') that genes would have if they followed depth alone: n_g d_s, within each section."""
        if self.sections is None:
            return np.outer(self.reader.gene_totals[genes], self.reader.depth).astype(np.float32)
        out = np.empty((len(genes), self.reader.n_spots), dtype=np.float32)
        for b, name in enumerate(self.sections.names):
            own = self.sections.spots(b)
            out[:, own] = np.outer(self.section_totals(name)[genes], self.samples.depth[b, self.sections.place[own]])
        return out

    def inputs(self, genes: Any = None, section: str | None = None) -> Tensor:
        """Encoder inputs of some genes.

        Parameters
        ----------
        genes
            Gene names or indices; None is all genes.
        section
            Whose counts are taken; has to be given where the model has several sections.

        Returns
        -------
        On the CPU: (n, S') with S' spots with at least one count, see :attr:`spots`; of several sections (n, P) over
        the places of all, zero where this one has no spot; images (n, 1, H, W) where the encoder is convolutional.

        Raises
        ------
        ValueError
            If a gene or section is unknown, or the model has several sections and none is named.
        """
        index, b = self._gene_index(genes), self._section_index(section)
        if b is None and self.sections is not None:
            raise ValueError(
                f"Expected the section whose counts are taken, found none; pass section=, one of {self.section_names}"
            )
        return self._sample_inputs(index + (b or 0) * self.reader.n_genes).cpu()

    def maps_to_spots(self, maps: np.ndarray, section: str | None = None) -> np.ndarray:
        """Bring maps over encoder inputs, (..., S'), (..., P) or (..., 1, H, W), to the model's spots, (..., S').

        Spots that share a cell of the grid get one value, and so do spots of several sections on one place.

        Parameters
        ----------
        maps
            The maps.
        section
            Only to the spots of that section, in the order of :meth:`parts`.

        Raises
        ------
        ValueError
            If the maps are of another shape.
        """
        b, shape = self._section_index(section), self.input_shape
        if maps.shape[maps.ndim - len(shape) :] != shape:
            raise ValueError(f"Expected maps of shape (..., {', '.join(map(str, shape))}), found {maps.shape}")
        if len(shape) > 1:
            maps = maps.reshape(*maps.shape[: maps.ndim - 3], -1)[..., np.asarray(self.settings["grid"]["cells"])]
        return self._places_to_spots(maps, b)

    def _places_to_spots(self, maps: np.ndarray, section: int | None = None) -> np.ndarray:
        if self.sections is None:
            return maps
        place = self.sections.place
        return maps[..., place if section is None else place[self.sections.spots(section)]]

    @overload
    def get_latent_representation(
        self, give_var: Literal[False] = False, member: int = 0, section: str | None = None
    ) -> np.ndarray: ...

    @overload
    def get_latent_representation(
        self, give_var: Literal[True], member: int = 0, section: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...

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
            Of the genes as this section alone shows them. None: of several sections, the mean of a gene's sections,
            weighted by its counts in each. A posterior is the narrower the more counts it rests on, so the weights are
            about those of precision; being the same for every latent, they leave the score of a gene on a concept the
            same mean of its scores in the sections. The variance is that of this mean.

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
        b = self._section_index(section)
        if self.sections is None:
            mean, var = self._encode(np.arange(self.reader.n_genes), member)
        elif b is not None:
            mean, var = self._encode(self._samples_of(b), member)
        else:
            mean, var = self._joint(member)
        return (mean, var) if give_var else mean

    def section_agreement(self) -> dict[tuple[str, str], float]:
        """How well sections agree on where genes lie in latent space: a correlation for each two of them.

        Genes with 50 counts or more in both are compared (first member), at most the 1,000 of most counts; two sections
        with fewer than 20 of them are left out. Training warns where it is low: the sections do not lie on one another.
        """
        self._check_if_trained(warn=True)
        found: dict[tuple[str, str], float] = {}
        for a, b in pairs(self.section_names if self.sections is not None else ()):
            first, second = self._samples_of(a), self._samples_of(b)
            totals = self.samples.gene_totals
            genes = comparable_genes(totals[first], totals[second])
            if len(genes) >= FEWEST:
                z_a, z_b = (self._encode(samples[genes], 0)[0] for samples in (first, second))
                found[self.section_names[a], self.section_names[b]] = agreement(z_a, z_b)
        return found

    def _joint(self, member: int) -> tuple[np.ndarray, np.ndarray]:
        """Means of all sections weighted by counts, (G, L), and their variance."""
        shape = (self.reader.n_genes, self.settings["n_latent"])
        mean, var = np.zeros(shape), np.zeros(shape)
        totals = np.maximum(self.reader.gene_totals, 1)
        for b in range(len(self.section_names)):
            samples = self._samples_of(b)
            share = (self.samples.gene_totals[samples] / totals)[:, None]
            m, v = self._encode(samples, member)
            mean += np.where(share > 0, share * m, 0)
            var += np.where(share > 0, share**2 * v, 0)
        for out in (mean, var):
            out[self.reader.gene_totals == 0] = np.nan
        return mean.astype(np.float32), var.astype(np.float32)

    @torch.inference_mode()
    def _encode(self, samples: np.ndarray, member: int) -> tuple[np.ndarray, np.ndarray]:
        """Posterior means and variances (n, L) of samples; NaN for those without a count."""
        self.module.eval()
        encoder = self.module.member(member).encoder
        shape = (len(samples), self.settings["n_latent"])
        mean, var = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        seen = np.flatnonzero(self.samples.gene_totals[samples] > 0)
        step = int(np.clip(ENCODE_VALUES // self.samples.n_spots, 1, ENCODE_BATCH))
        for start in range(0, len(seen), step):
            part = seen[start : start + step]
            m, log_var = encoder.posterior(self._sample_inputs(samples[part]))
            mean[part], var[part] = m.cpu().numpy(), self.module.variance(log_var).cpu().numpy()
        return mean, var

    def _sample_inputs(self, samples: np.ndarray) -> Tensor:
        """Encoder inputs of samples, on the model's device."""
        counts = torch.from_numpy(self.samples.profiles(samples)).to(self.device)
        totals = torch.from_numpy(self.samples.gene_totals[samples].astype(np.float32))[:, None].to(self.device)
        section = self.samples.section(samples)
        of = None if section is None else torch.from_numpy(section).to(self.device)
        return self.module.transform(counts, totals, of)

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
        (N, S) over all spots, NaN where a spot has no count; spots of several sections on one place get one value. A
        constant a row is free (the soft-max removes it).

        Raises
        ------
        ValueError
            If ``z`` is not of shape (N, L), or there is no such member.
        """
        z = self._check_latents(z, member)
        f = self.module.at_spots(self.module.member(member).decoder(z)).cpu().numpy()
        return self.to_all_spots(self._places_to_spots(f))

    def _check_latents(self, z: np.ndarray | Tensor, member: int) -> Tensor:
        """Latents on the model's device; the module is in evaluation mode then."""
        self._check_member(member)
        z = torch.as_tensor(np.asarray(z), dtype=torch.float32)
        if z.ndim != 2 or z.shape[1] != self.settings["n_latent"]:
            raise ValueError(f"Expected latents of shape (N, {self.settings['n_latent']}), found {tuple(z.shape)}")
        self.module.eval()
        return z.to(self.device)

    def to_all_spots(self, maps: np.ndarray, counted: bool = False) -> np.ndarray:
        """Bring maps over the model's spots (..., S') to all spots (..., S), NaN where the model knows none.

        A model may be loaded on spots of which some have lost their counts; with ``counted`` those are NaN too.
        """
        full = np.full((*maps.shape[:-1], self.reader.n_all_spots), np.nan, dtype=maps.dtype)
        full[..., self.spots] = maps
        if counted:
            full[..., self.spots[self.reader.depth == 0]] = np.nan
        return full

    def _check_member(self, member: int) -> None:
        if not 0 <= member < self.n_members:
            raise ValueError(f"Expected a member from 0 to {self.n_members - 1}, found {member}")

    def _section_index(self, section: str | None) -> int | None:
        """Number of a section; None where all are meant, or there is one."""
        if section is None:
            return 0 if self.sections is not None and len(self.sections.names) == 1 else None
        if section not in self.section_names:
            raise ValueError(
                f"Expected a section among {self.section_names}, found {section!r}"
                if self.section_names
                else f"Expected a model of several sections to take {section!r} of, found one that knows no sections; "
                "name their column: GeneVAE.setup_anndata(adata, batch_key=...)"
            )
        return None if self.sections is None else self.section_names.index(section)

    def _samples_of(self, section: int) -> np.ndarray:
        return np.arange(self.reader.n_genes) + section * self.reader.n_genes

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
