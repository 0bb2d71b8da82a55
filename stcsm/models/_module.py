"""The torch half of the gene model: an ensemble of variational autoencoders over spots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn

from stcsm.models import _likelihood
from stcsm.models._negative_binomial import Held, held_counts, negative_binomial
from stcsm.models._side_by_side import SideBySide, T
from stcsm.nets import SpotGrid

LIKELIHOODS = ("nb", "multinomial", "bernoulli")
NOWHERE = -60.0
"""Log share of a section's counts where it has no spot: the soft-max gives it nothing, without infinities."""
BERNOULLI_KL = 0.005
"""Weight of the divergence beside the Bernoulli likelihood, about the published 2 * 0.5e-4 * 1024 cells / 20 latents.
At full weight all but two latents collapse."""


class GeneMember(nn.Module):
    """One autoencoder of the ensemble: encoder, decoder and, for the negative binomial, the spots' dispersion.

    Parameters
    ----------
    encoder
        Has ``posterior(inputs)``, mean and log-variance (N, L) each; its ``forward`` gives the mean.
    decoder
        Latents (N, L) to f, (N, S).
    n_dispersions
        S for the negative binomial, 0 for the others.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, n_dispersions: int):
        super().__init__()
        self.encoder: Any = encoder
        self.decoder = decoder
        self.log_theta = nn.Parameter(torch.ones(n_dispersions)) if n_dispersions else None


class GeneVAEModule(BaseModuleClass):
    """Gene profiles in, ELBO out; every member sees the same batches and has noise of its own.

    Parameters
    ----------
    depth
        Share of all counts that falls on each spot, (S,); of several sections, the share of each section's counts on
        each place, (B, S), zero where it has no spot.
    likelihood
        ``"nb"``, ``"multinomial"`` or ``"bernoulli"``.
    n_latent
        Size of the latent space.
    seeds
        One seed a member: its first weights and its noise come from it alone, so a member does not depend on how many
        others there are.
    make_member
        Makes a member, drawing its weights from torch's global generator, which is seeded for it.
    grid
        Where encoders take images, the cells of the spots.
    """

    log_depth: Tensor
    depth: Tensor

    def __init__(
        self,
        depth: Tensor,
        likelihood: str,
        n_latent: int,
        seeds: Sequence[int],
        make_member: Callable[[], GeneMember],
        grid: SpotGrid | None = None,
    ):
        super().__init__()
        self.likelihood = likelihood
        self.n_latent = n_latent
        self.seeds = tuple(seeds)
        self.register_buffer("depth", depth)
        self.register_buffer("log_depth", depth.log().clamp(min=NOWHERE))
        self.grid = grid
        members = []
        for seed in self.seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                members.append(make_member())
        self.members = nn.ModuleList(members)
        self.workers: SideBySide | None = None
        self.reset_noise()

    def member(self, m: int) -> GeneMember:
        """One member of the ensemble."""
        return cast(GeneMember, self.members[m])

    def of_members(self, work: Callable[[int], T], like: Tensor) -> list[T]:
        """What ``work`` gives for each member; on threads of their own while they train."""
        n = len(self.members)
        if self.workers is not None and self.workers.fits(like):
            return self.workers.each(work, n)
        return [work(m) for m in range(n)]

    def reset_noise(self) -> None:
        """Start every member's noise afresh from its seed."""
        self._generators: dict[tuple[int, torch.device], torch.Generator] = {}
        self._rows: Tensor | None = None
        self._batch_size: int | None = None

    def take_part(self, rows: Tensor, batch_size: int) -> None:
        """Say which rows of a batch of how many genes come next, where several processes share it.

        Noise is drawn for the whole batch, and each gene gets its own, in whatever process it is.
        """
        self._rows, self._batch_size = rows, batch_size

    def _noise(self, member: int, like: Tensor) -> Tensor:
        key = (member, like.device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(like.device).manual_seed(self.seeds[member])
        n = len(like) if self._batch_size is None else self._batch_size
        noise = torch.randn((n, like.shape[1]), generator=self._generators[key], device=like.device)
        return noise if self._rows is None else noise[self._rows]

    @staticmethod
    def of_section(depth: Tensor, section: Tensor | None) -> Tensor:
        """Depths of the spots, (S,), or of each sample's section, (N, S)."""
        return depth if depth.ndim == 1 or section is None else depth[section]

    def transform(self, counts: Tensor, totals: Tensor, section: Tensor | None = None) -> Tensor:
        """Encoder inputs of counts (N, S) with totals (N, 1): (N, S), or images (N, 1, H, W) where there is a grid.

        u_gs = log1p(x_gs / (n_g d_s + 1/2)), or x_gs / max_s x_gs for the Bernoulli likelihood. On a grid s is a cell,
        its counts and depth those of its spots together; cells without a spot are zero. Of several sections,
        ``section`` (N,) says which one a sample is of; places where it has no spot are zero.
        """
        depth = self.of_section(self.depth, section)
        if self.grid is not None:
            counts, depth = self.grid.sums(counts), self.grid.sums(depth)
        if self.likelihood == "bernoulli":
            u = _likelihood.scaled_by_maximum(counts)
        else:
            u = torch.log1p(counts / (totals * depth + 0.5))
        return u if self.grid is None else self.grid.images(u)

    def to_spots(self, maps: Tensor) -> Tensor:
        """Bring maps over inputs, (..., S) or (..., 1, H, W), to spots (..., S); spots of one cell get one value."""
        return maps if self.grid is None else self.grid.spots(maps.squeeze(-3))

    def at_spots(self, f: Tensor) -> Tensor:
        """What a decoder gives, at the spots, (N, S)."""
        return f

    def draw(self, member: int, mean: Tensor, log_var: Tensor) -> Tensor:
        """One draw (N, L) from a member's posterior."""
        return mean + (log_var / 2).exp() * self._noise(member, mean)

    def variance(self, log_var: Tensor) -> Tensor:
        """Posterior variance of what an encoder's second head says."""
        return log_var.exp()

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: Any) -> dict[str, Tensor | None]:
        return {"counts": tensors["counts"], "totals": tensors["totals"], "section": tensors.get("section")}

    @auto_move_data
    def inference(self, counts: Tensor, totals: Tensor, section: Tensor | None = None) -> dict[str, list[Tensor]]:
        """Posterior of every member, and one draw from it: lists of (N, L)."""
        u = self.transform(counts, totals, section)

        def of_member(m: int) -> tuple[Tensor, Tensor, Tensor]:
            # Under autocast an encoder may give bfloat16; what follows wants all its digits.
            mean, log_var = (t.float() for t in self.member(m).encoder.posterior(u))
            return mean, log_var, self.draw(m, mean, log_var) if self.training else mean

        mean, log_var, z = zip(*self.of_members(of_member, u), strict=True)
        return {"mean": list(mean), "log_var": list(log_var), "z": list(z)}

    def _get_generative_input(
        self, tensors: dict[str, Tensor], inference_outputs: dict[str, list[Tensor]], **_: Any
    ) -> dict[str, list[Tensor]]:
        return {"z": inference_outputs["z"]}

    @auto_move_data
    def generative(self, z: list[Tensor]) -> dict[str, list[Tensor]]:
        """Decoder output f(z) of every member: list of (N, S)."""
        return {"f": self.of_members(lambda m: self.member(m).decoder(z[m]), z[0])}

    def log_likelihood(
        self,
        member: int,
        f: Tensor,
        counts: Tensor,
        totals: Tensor,
        section: Tensor | None = None,
        held: Held | None = None,
    ) -> Tensor:
        """Log-probability (N,) of counts (N, S) under one member's decoder output."""
        if self.likelihood == "bernoulli":
            there = None if section is None else (self.of_section(self.depth, section) > 0).to(f.dtype)
            return _likelihood.bernoulli(_likelihood.scaled_by_maximum(counts), f, there)
        log_depth = self.of_section(self.log_depth, section)
        log_theta = self.member(member).log_theta
        if log_theta is not None:
            return negative_binomial(counts, totals, f, log_depth, log_theta, held=held)
        return _likelihood.multinomial(counts, _likelihood.log_rate(f, log_depth))

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, list[Tensor]],
        generative_outputs: dict[str, list[Tensor]],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative ELBO, mean over genes and summed over members, so that members do not feel one another.

        In validation the targets are held-out counts of the same genes (``"target"``).
        """
        target = tensors.get("target", tensors["counts"])
        target_totals = tensors.get("target_totals", tensors["totals"])
        n = len(self.members)
        kl_weight = kl_weight * (BERNOULLI_KL if self.likelihood == "bernoulli" else 1)
        loss = target.new_zeros(())
        reconstruction = target.new_zeros(len(target))
        kl = target.new_zeros(len(target))
        held = held_counts(target, target_totals) if self.likelihood == "nb" else None

        def of_member(m: int) -> tuple[Tensor, Tensor, Tensor]:
            f, mean, log_var = generative_outputs["f"][m], inference_outputs["mean"][m], inference_outputs["log_var"][m]
            kl_m = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=-1)
            rec_m = -self.log_likelihood(m, f, target, target_totals, tensors.get("section"), held)
            return (rec_m + kl_weight * kl_m).mean(), rec_m.detach(), kl_m.detach()

        losses, reconstructions, divergences = map(list, zip(*self.of_members(of_member, target), strict=True))
        if self.workers is not None and self.workers.fits(target):
            losses = self.workers.cut(losses)
        for loss_m, rec_m, kl_m in zip(losses, reconstructions, divergences, strict=True):
            loss = loss + loss_m
            reconstruction = reconstruction + rec_m / n
            kl = kl + kl_m / n
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl)
