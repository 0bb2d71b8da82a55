"""The torch half of the gene model: an ensemble of variational autoencoders over spots.

Members share nothing but their inputs, so while they train on a CPU each may work on a thread of its own
(:class:`SideBySide`): arrays of a batch of genes are too small for two processor cores to share one operation, but not
too small for each core to have a member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import numpy as np
import torch
from scipy import sparse
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data
from torch import Tensor, nn

from stcsm.models import _likelihood
from stcsm.models._likelihood import StoredCounts, negative_binomial, stored_counts
from stcsm.nets import GridDecoder, GridEncoder, SpatialFilter, SpotDecoder, SpotEncoder, SpotGrid
from stcsm.space import spatial_filter, spatial_order

T = TypeVar("T")
LIKELIHOODS = ("nb", "multinomial", "bernoulli")
NOWHERE = -60.0
"""Log share of a section's counts where it has no spot: its soft-max is zero there, without infinities."""
BERNOULLI_KL = 0.005
"""Weight of the divergence beside the Bernoulli likelihood, about the published 2 * 0.5e-4 * 1024 cells / 20 latents.
At full weight all but two latents collapse."""


class GeneMember(nn.Module):
    """One autoencoder of the ensemble: encoder, decoder and, for the negative binomial, the spots' dispersion.

    Parameters
    ----------
    encoder
        Has ``posterior(inputs)``, mean and log-variance (N, L) each, in two halves: ``filtered``, which has no weights,
        and ``posterior_of_filtered``. Its ``forward`` gives the mean.
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

    scvi-tools calls ``inference``, ``generative`` and ``loss``, in this order, for every batch.

    Parameters
    ----------
    depth
        Share of all counts that falls on each spot, (S,); of several sections, the share of each section's counts at
        each array position, (B, S), zero where it has no spot.
    likelihood
        ``"nb"``, ``"multinomial"`` or ``"bernoulli"``.
    n_latent
        Size of the latent space.
    seeds
        One seed a member: its initial weights and its noise come from it alone, so a member does not depend on how many
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
        """Results of ``work`` for each member; on threads of their own while they train."""
        n = len(self.members)
        if self.workers is not None and self.workers.fits(like):
            return self.workers.each(work, n)
        return [work(m) for m in range(n)]

    def reset_noise(self) -> None:
        """Restart every member's noise from its seed."""
        self._generators: dict[tuple[int, torch.device], torch.Generator] = {}
        self._rows: Tensor | None = None
        self._batch_size: int | None = None

    def noise_state(self) -> list[Tensor]:
        """State of every member's noise; empty before the first draw."""
        return [g.get_state() for _, g in sorted(self._generators.items(), key=lambda item: item[0][0])]

    def set_noise_state(self, states: list[Tensor]) -> None:
        """Go on with every member's noise from what :meth:`noise_state` gave."""
        for m, state in enumerate(states):
            self._generator(m, self.device).set_state(state)

    def take_part(self, rows: Tensor, batch_size: int) -> None:
        """Tell which rows of a batch of ``batch_size`` genes come next, where several processes share the batch.

        Noise is drawn for the whole batch and each gene takes its own row, whichever process has the gene.
        """
        self._rows, self._batch_size = rows, batch_size

    def _generator(self, member: int, device: torch.device) -> torch.Generator:
        key = (member, device)
        if key not in self._generators:
            self._generators[key] = torch.Generator(device).manual_seed(self.seeds[member])
        return self._generators[key]

    def _noise(self, member: int, like: Tensor) -> Tensor:
        n = len(like) if self._batch_size is None else self._batch_size
        generator = self._generator(member, like.device)
        noise = torch.randn((n, like.shape[1]), generator=generator, device=like.device)
        return noise if self._rows is None else noise[self._rows]

    @staticmethod
    def of_section(depth: Tensor, section: Tensor | None) -> Tensor:
        """Depths of the spots, (S,), or of each sample's section, (N, S)."""
        return depth if depth.ndim == 1 or section is None else depth[section]

    def transform(self, counts: Tensor, totals: Tensor, section: Tensor | None = None) -> Tensor:
        """Encoder inputs of counts (N, S) with totals (N, 1): (N, S), or images (N, 1, H, W) where there is a grid.

        u_gs = log1p(x_gs / (n_g d_s + 1/2)), or x_gs / max_s x_gs for the Bernoulli likelihood. On a grid s is a cell,
        its counts and depth those of its spots together; cells without a spot are zero. Of several sections,
        ``section`` (N,) is the section of each sample; array positions where it has no spot are zero.
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
        """Decoder output at the spots, (N, S)."""
        return f

    def draw(self, member: int, mean: Tensor, log_var: Tensor) -> Tensor:
        """One draw (N, L) from a member's posterior."""
        return mean + (log_var / 2).exp() * self._noise(member, mean)

    def variance(self, log_var: Tensor) -> Tensor:
        """Posterior variance, given the encoder's second output."""
        return log_var.exp()

    def _get_inference_input(self, tensors: dict[str, Tensor], **_: Any) -> dict[str, Tensor | None]:
        return {"counts": tensors["counts"], "totals": tensors["totals"], "section": tensors.get("section")}

    @auto_move_data
    def inference(self, counts: Tensor, totals: Tensor, section: Tensor | None = None) -> dict[str, list[Tensor]]:
        """Posterior of every member, and one draw from it: lists of (N, L)."""
        # Members share one fixed filter, so it is applied once for all.
        u = self.member(0).encoder.filtered(self.transform(counts, totals, section))

        def of_member(m: int) -> tuple[Tensor, Tensor, Tensor]:
            # Under autocast an encoder may give bfloat16; what follows wants all its digits.
            mean, log_var = (t.float() for t in self.member(m).encoder.posterior_of_filtered(u))
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
        stored: StoredCounts | None = None,
    ) -> Tensor:
        """Log-probability (N,) of counts (N, S) under one member's decoder output."""
        if self.likelihood == "bernoulli":
            there = None if section is None else (self.of_section(self.depth, section) > 0).to(f.dtype)
            return _likelihood.bernoulli(_likelihood.scaled_by_maximum(counts), f, there)
        log_depth = self.of_section(self.log_depth, section)
        log_theta = self.member(member).log_theta
        if log_theta is not None:
            return negative_binomial(counts, totals, f, log_depth, log_theta, stored=stored)
        return _likelihood.multinomial(counts, _likelihood.log_rate(f, log_depth))

    def loss(
        self,
        tensors: dict[str, Tensor],
        inference_outputs: dict[str, list[Tensor]],
        generative_outputs: dict[str, list[Tensor]],
        kl_weight: Tensor | float = 1.0,
    ) -> LossOutput:
        """Negative ELBO, mean over genes and summed over members, so that members do not influence one another.

        In validation the targets are held-out counts of the same genes (``"target"``).
        """
        target = tensors.get("target", tensors["counts"])
        target_totals = tensors.get("target_totals", tensors["totals"])
        n = len(self.members)
        kl_weight = kl_weight * (BERNOULLI_KL if self.likelihood == "bernoulli" else 1)
        loss = target.new_zeros(())
        reconstruction = target.new_zeros(len(target))
        kl = target.new_zeros(len(target))
        stored = stored_counts(target, target_totals) if self.likelihood == "nb" else None

        def of_member(m: int) -> tuple[Tensor, Tensor, Tensor]:
            f, mean, log_var = generative_outputs["f"][m], inference_outputs["mean"][m], inference_outputs["log_var"][m]
            kl_m = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=-1)
            rec_m = -self.log_likelihood(m, f, target, target_totals, tensors.get("section"), stored)
            return (rec_m + kl_weight * kl_m).mean(), rec_m.detach(), kl_m.detach()

        losses, reconstructions, divergences = map(list, zip(*self.of_members(of_member, target), strict=True))
        if self.workers is not None and self.workers.fits(target):
            losses = self.workers.cut(losses)
        for loss_m, rec_m, kl_m in zip(losses, reconstructions, divergences, strict=True):
            loss = loss + loss_m
            reconstruction = reconstruction + rec_m / n
            kl = kl + kl_m / n
        return LossOutput(loss=loss, reconstruction_loss=reconstruction, kl_local=kl)


def build_module(
    settings: dict[str, Any], depth: Tensor, coordinates: np.ndarray, grid: SpotGrid | None
) -> GeneVAEModule:
    """Return the module that the settings of a model describe, with new weights.

    Parameters
    ----------
    settings
        Settings of the model.
    depth
        As :class:`GeneVAEModule` takes it.
    coordinates, grid
        As :func:`member_maker` takes them.
    """
    return GeneVAEModule(
        depth,
        settings["likelihood"],
        settings["n_latent"],
        [settings["seed"] + m for m in range(settings["n_seeds"])],
        member_maker(settings, coordinates, grid),
        grid,
    )


def member_maker(settings: dict[str, Any], coordinates: np.ndarray, grid: SpotGrid | None) -> Callable[[], GeneMember]:
    """Return a function that makes a member with new weights; fixed filters are built once and shared.

    Parameters
    ----------
    settings
        Settings of the model.
    coordinates
        Coordinates of its spots, (S', 2 or 3).
    grid
        Their cells, for a convolutional model.
    """
    n_spots, n_hidden, n_latent = len(coordinates), settings["n_hidden"], settings["n_latent"]
    n_dispersions = n_spots if settings["likelihood"] == "nb" else 0
    width = 0.0 if settings["smoothing"] == "auto" else settings["smoothing"]
    over_spots = None
    if width:
        over_spots = SpatialFilter(spatial_filter(coordinates, width, dtype=np.float32), spatial_order(coordinates))
    if grid is None:
        return lambda: GeneMember(
            SpotEncoder(n_spots, n_hidden, n_latent, over_spots),
            SpotDecoder(n_latent, n_hidden, n_spots, over_spots),
            n_dispersions,
        )
    over_cells = SpatialFilter(_cell_filter(coordinates, width, grid)) if width else None
    return lambda: GeneMember(
        GridEncoder(grid, n_hidden, n_latent, over_cells),
        GridDecoder(n_latent, n_hidden, grid, over_spots),
        n_dispersions,
    )


def _cell_filter(coordinates: np.ndarray, width: float, grid: SpotGrid) -> sparse.csr_array:
    """Filter (H * W, H * W) between cells with spots, which lie where their spots lie on average; zero elsewhere."""
    cells, of_spot = np.unique(grid.cells.numpy(), return_inverse=True)
    n = np.bincount(of_spot)[:, None]
    centres = np.column_stack([np.bincount(of_spot, weights=c) for c in coordinates.T.astype(float)]) / n
    inner = spatial_filter(centres, width).tocoo()
    return sparse.csr_array((inner.data, (cells[inner.row], cells[inner.col])), shape=(grid.n_cells, grid.n_cells))


class SideBySide:
    """Threads that run members, forward and backward.

    Parameters
    ----------
    n_workers
        Number of threads.
    """

    def __init__(self, n_workers: int):
        # A member stays on its thread: autograd sums gradients in the order in which the thread made the nodes, so with
        # members that change threads the rounding would change from run to run.
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"stcsm-member-{i}") for i in range(n_workers)]
        self._cuts: list[tuple[Tensor, Tensor]] = []

    @staticmethod
    def fits(like: Tensor) -> bool:
        """Whether a step may be split: it trains on the CPU, in one process, in the precision of its weights.

        These threads share neither the autocast state of the calling thread nor gradients between processes.
        """
        return (
            torch.is_grad_enabled()
            and like.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not (torch.distributed.is_available() and torch.distributed.is_initialized())
        )

    def each(self, work: Callable[[int], T], n: int) -> list[T]:
        """Results of ``work`` for each member, in order."""
        waiting = [self._threads[m % len(self._threads)].submit(work, m) for m in range(n)]
        return [answer.result() for answer in waiting]

    def cut(self, losses: list[Tensor]) -> list[Tensor]:
        """Return the losses as leaves, at which the backward pass of their sum stops; :meth:`backward` continues it."""
        leaves = [loss.detach().requires_grad_() for loss in losses]
        self._cuts = list(zip(losses, leaves, strict=True))
        return leaves

    def backward(self) -> None:
        """Continue the backward pass behind the leaves, with the gradients that they received."""
        cuts, self._cuts = self._cuts, []

        def behind(m: int) -> None:
            loss, leaf = cuts[m]
            if leaf.grad is not None:
                loss.backward(leaf.grad)

        if cuts:
            self.each(behind, len(cuts))

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        # A copy of a module in training (weight averaging, a spawned process) works without threads.
        return type(None), ()

    def close(self) -> None:
        """Stop the threads."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch use ``n`` threads inside the block."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def side_by_side(module: GeneVAEModule, small: bool = False) -> Iterator[None]:
    """Train the members of ``module`` on threads of their own, where torch may use several.

    Each gets its share of torch's threads, or one where batches are ``small``, so the total does not grow.
    """
    threads = torch.get_num_threads()
    n_workers = min(len(module.members), threads)
    with torch_threads(1 if small else threads // n_workers):
        if n_workers < 2:
            yield
            return
        module.workers = workers = SideBySide(n_workers)
        try:
            yield
        finally:
            module.workers = None
            workers.close()
