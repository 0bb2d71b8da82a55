"""Running the user's encoder under a rule or none, and what its first pass must show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stcsm.attribution._evaluating import sealed_generators
from stcsm.attribution._graph import hidden_activations
from stcsm.attribution._latents import read_latents
from stcsm.attribution._layers import check_names, warn_narrow
from stcsm.attribution._mode import BaselineMode, EncoderMode
from stcsm.attribution._rules import RectGrad, RectGradModified, Rule
from stcsm.attribution._sites import Site
from stcsm.attribution._trial import Trial
from stcsm.attribution._warn import warn_user
from stcsm.attribution._watch import no_gradient

__all__ = ["Encoder"]

T = TypeVar("T")
Point = Callable[[int], Tensor]


class Encoder:
    """The user's encoder, as the methods see it.

    Parameters
    ----------
    module
        The user's module.
    latent_dim
        Components of the concept vectors, which the latents must have too.
    device
        Where the module's parameters are.
    batch_size
        Most rows of one pass.
    published
        Whether activations that the published code does not override keep their gradient under a rule.
    seal
        Told whether the module draws from the global generators.
    several_batches
        Whether there are more batches than one.
    advance
        Told how many variants of a batch are done (a progress bar).
    """

    def __init__(
        self,
        module: nn.Module,
        latent_dim: int,
        device: torch.device,
        batch_size: int,
        *,
        published: bool,
        seal: sealed_generators,
        several_batches: bool = False,
        advance: Callable[[int], object] = bool,
    ) -> None:
        self.module, self.latent_dim, self.device = module, latent_dim, device
        self.batch_size, self.published, self.advance = batch_size, published, advance
        self._sites: list[Site] | None = None
        self._seal, self._several_batches = seal, several_batches
        self._tied_to_rows = self._packs = False

    def __call__(self, rows: Tensor, rule: Rule | None = None) -> tuple[Tensor, Tensor]:
        """Run a batch.

        Parameters
        ----------
        rows
            (n, ...), on the encoder's device.
        rule
            Backward rule for the activations.

        Returns
        -------
        leaf, latents
            What to differentiate with respect to, (n, ...), and the latents, (n, L).
        """
        leaf = rows.detach().clone().requires_grad_()
        first = self._sites is None
        if not first and rule is None:
            latents = self._checked(self._call(leaf), leaf)
            return leaf, latents
        mode = EncoderMode(self.module, leaf, rule, published=self.published, known=self._sites)
        with mode:
            latents = self._call(leaf)
        latents = self._checked(latents, leaf)
        if first:
            self._warn_of_cuts(mode)
            trial = self._try(rows, latents)
            if rule is not None:
                self._check_sites(mode, rows, rule, leaf, latents, trial)
            self._sites = mode.sites
        elif self._sites is not None and len(mode.sites) != len(self._sites):
            raise ValueError(
                f"Expected the encoder to call the same activations for every batch, found {len(mode.sites)} of "
                f"{len(self._sites)}; pass an encoder whose control flow does not depend on the data."
            )
        return leaf, latents

    def _call(self, leaf: Tensor) -> Any:
        # A copy, because an encoder may begin with an operation in place, which autograd refuses on a leaf.
        return self.module(leaf.clone())

    def pre_activations(self, rows: Tensor) -> list[tuple[str, Tensor]]:
        """Return name and argument of every activation of a pass, in order."""
        with BaselineMode() as mode:
            # With autograd, because what a call is may hang on whether an operand carries a gradient.
            self._call(rows.detach().clone().requires_grad_())
        return mode.inputs

    def latents(self, rows: Tensor) -> Tensor:
        """Latents alone, (n, L), without autograd."""
        if self._sites is None:
            return self(rows)[1].detach()
        with torch.no_grad():
            return self._checked(self.module(rows.detach().clone()), rows, with_gradient=False)

    @staticmethod
    def backward(leaf: Tensor, latents: Tensor, directions: Tensor, *, keep: bool = False) -> Iterator[Tensor]:
        """Signals that arrive at the inputs, one backward pass for each direction.

        Parameters
        ----------
        leaf, latents
            Of one pass.
        directions
            (D, L).
        keep
            Whether the graph is needed afterwards.

        Yields
        ------
        torch.Tensor
            (n, ...).
        """
        last = len(directions) - 1
        for d, direction in enumerate(directions):
            (signal,) = torch.autograd.grad(
                latents, leaf, direction.expand_as(latents), retain_graph=keep or d < last, allow_unused=True
            )
            if signal is None:
                raise ValueError(no_gradient("no path leads from the latents back to the inputs"))
            yield signal

    def points(self, rows: int, count: int, point: Point) -> Iterator[tuple[range, Tensor, Tensor]]:
        """Run many variants of one batch, several variants a pass as far as the batch size goes.

        Parameters
        ----------
        rows
            Samples of the batch, n.
        count
            How many variants there are.
        point
            Makes one of them, (n, ...), from its index; the same each time.

        Yields
        ------
        which, leaf, latents
            Indices of the variants of the pass, and the pass, their rows one variant after another.
        """
        for which, (leaf, latents) in self._packed(rows, count, point, self):
            yield which, leaf, latents

    def many_latents(self, rows: int, count: int, point: Point) -> Iterator[Tensor]:
        """Latents of many variants of one batch, (n, L) for each, without autograd."""
        for which, latents in self._packed(rows, count, point, self.latents):
            yield from latents.unflatten(0, (len(which), rows))

    def _packed(self, rows: int, count: int, point: Point, run: Callable[[Tensor], T]) -> Iterator[tuple[range, T]]:
        done = 0
        while done < count:
            # The first pass of all is of one variant: it finds out whether the rows of a pass are all alike.
            alone = self._tied_to_rows or self._sites is None
            many = 1 if alone else min(max(1, self.batch_size // rows), count - done)
            which = range(done, done + many)
            try:
                result = run(torch.cat([point(i) for i in which]))
            except Exception:
                # An encoder may be made for a number of rows (a fixed draw of noise): then one variant at a time.
                if many == 1 or self._packs:
                    raise
                self._tied_to_rows = True
                continue
            self._packs |= many > 1
            yield which, result
            self.advance(many)
            done += many

    def _checked(self, latents: Any, leaf: Tensor, *, with_gradient: bool = True) -> Tensor:
        latents = read_latents(latents, leaf.shape[0], self.latent_dim, leaf.dtype)
        if with_gradient and not latents.requires_grad:
            raise ValueError(no_gradient("its latents carry no gradient"))
        finite = latents.detach().isfinite().all(dim=1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"Expected finite latents, found {latents[row].detach().tolist()} at row {row} of a batch; "
                "bring the inputs to the encoder's range."
            )
        return latents

    @staticmethod
    def _warn_of_cuts(mode: EncoderMode) -> None:
        assert mode.watch is not None
        if mode.watch.cuts:
            places = "; ".join(dict.fromkeys(mode.watch.cuts))
            warn_user(
                f"A part of what the latents are made of leaves autograd: {places}. The maps leave out what runs "
                "through it; remove torch.no_grad() and detach() if it should count."
            )

    def _try(self, rows: Tensor, latents: Tensor) -> Trial | None:
        """Refuse encoders whose latents are not a function of their own sample."""

        def run(some: Tensor) -> tuple[Tensor, list[tuple[str, Tensor]]]:
            leaf = some.detach().clone().requires_grad_()
            with BaselineMode() as mode:
                z = self._call(leaf)
            return self._checked(z, leaf).detach(), mode.inputs

        trial = Trial.of(self.module, run, rows, latents, self._seal)
        # Told from the trial, or from the refusal of any other number of rows.
        self._tied_to_rows = trial is not None and trial.tied_to_rows
        if self._tied_to_rows and self._several_batches:
            raise ValueError(
                f"Expected an encoder that treats every row of a batch alike, found that equal samples get unequal "
                f"latents in different rows, so that the batches of {rows.shape[0]} would matter; pass a batch_size of "
                "at least the number of inputs, or take what is held for each row out of the encoder."
            )
        return trial

    def _check_sites(
        self, mode: EncoderMode, rows: Tensor, rule: Rule, leaf: Tensor, latents: Tensor, trial: Trial | None
    ) -> None:
        assert mode.watch is not None
        hidden, custom = hidden_activations(latents, leaf, mode.spared, mode.watch.seen)
        if hidden:
            raise ValueError(
                f"Expected every activation to be called where Python sees it, found {', '.join(hidden)} hidden in a "
                "scripted or compiled function, a checkpoint or a fused operation; call it through torch.nn or "
                "torch.nn.functional, or use a method without rules, such as integrated_gradients."
            )
        if custom:
            warn_user(
                f"The autograd functions {', '.join(custom)} have a backward pass of their own, on which a rule has no "
                "hold: if one is an activation, call it through torch.nn.functional instead."
            )
        ruled = [site for site in mode.sites if site.ruled]
        if not ruled:
            if torch.autograd.grad(latents.sum(), leaf, allow_unused=True)[0] is None:
                raise ValueError(no_gradient("no path leads from the latents back to the inputs"))
            raise ValueError(
                f"Expected at least one activation between inputs and latents, found none in "
                f"{type(self.module).__name__}; a rule would change nothing: use input_x_gradient or saliency."
            )
        if rule.per_sample and trial is not None and rows.shape[0] > 1:
            for site in ruled:
                trial.find_batch_dimension(site)
        if isinstance(rule, RectGrad):
            warn_narrow(ruled, rule.percentile)
        if isinstance(rule, RectGradModified):
            check_names(ruled, rule.signed_layers)
