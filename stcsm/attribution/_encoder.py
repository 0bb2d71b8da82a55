"""Running the user's encoder: in evaluation mode, under a rule or none, leaving no trace."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stcsm.attribution._graph import hidden_activations
from stcsm.attribution._mode import BaselineMode, EncoderMode, no_gradient
from stcsm.attribution._percentile import highest_useful_percentile, percentile_rank
from stcsm.attribution._rules import RectGrad, RectGradModified, Rule
from stcsm.attribution._sites import Site

__all__ = ["Encoder", "evaluating"]

T = TypeVar("T")
Point = Callable[[int], Tensor]


@contextmanager
def evaluating(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Every submodule in evaluation mode, autograd on, autocast off; afterwards all as before.

    The flags are set one by one, not through ``encoder.eval()``, which a module may override with side effects.
    """
    flags = [(module, module.training) for module in encoder.modules()]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {device.type, "cpu"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            for module, _ in flags:
                module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training


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
    reference
        Whether activations that the published code does not override keep their gradient under a rule.
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
        reference: bool,
        advance: Callable[[int], object] = bool,
    ) -> None:
        self.module, self.latent_dim, self.device = module, latent_dim, device
        self.batch_size, self.reference, self.advance = batch_size, reference, advance
        self._sites: list[Site] | None = None
        self._tied_to_rows = False

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
        mode = EncoderMode(self.module, leaf, rule, reference=self.reference, known=self._sites)
        with mode:
            latents = self._call(leaf)
        self._checked(latents, leaf)
        if first:
            self._refuse_chance(mode, rows, latents)
            if rule is not None:
                self._check_sites(mode, rows, rule, leaf, latents)
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
            return self._checked(self.module(rows.detach().clone()), None, rows.shape[0])

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
            many = 1 if self._tied_to_rows else min(max(1, self.batch_size // rows), count - done)
            which = range(done, done + many)
            try:
                result = run(torch.cat([point(i) for i in which]))
            except (RuntimeError, ValueError):
                # An encoder may hold something for each row (a fixed draw of noise): then one variant at a time.
                if many == 1:
                    raise
                self._tied_to_rows = True
                continue
            yield which, result
            self.advance(many)
            done += many

    def _checked(self, latents: Any, leaf: Tensor | None, rows: int | None = None) -> Tensor:
        n = leaf.shape[0] if leaf is not None else rows
        if not isinstance(latents, Tensor):
            raise TypeError(_not_a_tensor(latents))
        if latents.ndim != 2 or latents.shape[0] != n:
            raise ValueError(
                f"Expected an encoder that maps {n} samples to latents of shape ({n}, {self.latent_dim}), found "
                f"{tuple(latents.shape)}; flatten everything but the first dimension."
            )
        if latents.shape[1] != self.latent_dim:
            raise ValueError(
                f"Expected concepts with as many components as the encoder has latents, found concepts of "
                f"{self.latent_dim} components and latents of shape {tuple(latents.shape)}; "
                f"pass concepts of shape ({latents.shape[1]},) or (K, {latents.shape[1]})."
            )
        if leaf is not None and not latents.requires_grad:
            raise ValueError(no_gradient("its latents carry no gradient"))
        finite = latents.detach().isfinite().all(dim=1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"Expected finite latents, found {latents[row].detach().tolist()} at row {row} of a batch; "
                "bring the inputs to the encoder's range."
            )
        return latents

    def _refuse_chance(self, mode: EncoderMode, rows: Tensor, latents: Tensor) -> None:
        """Refuse encoders whose latents change from call to call or with the company of a sample."""
        if mode.random:
            with torch.no_grad():
                again = self.module(rows.detach().clone())
            if not torch.allclose(again, latents, rtol=1e-3, atol=1e-5):
                raise ValueError(
                    f"Expected an encoder that gives the same latents every time, found that it draws random numbers "
                    f"({', '.join(sorted(set(mode.random)))}) in evaluation mode; return the mean of the latents, not "
                    "a sample."
                )
        if mode.batch_statistics:
            raise ValueError(
                f"Expected latents of a sample that do not depend on the rest of its batch, found batch statistics in "
                f"{mode.batch_statistics[0]}; build that layer with track_running_stats=True and train it."
            )

    def _check_sites(self, mode: EncoderMode, rows: Tensor, rule: Rule, leaf: Tensor, latents: Tensor) -> None:
        hidden = hidden_activations(latents, leaf, mode.spared)
        if hidden:
            raise ValueError(
                f"Expected every activation to be called where Python sees it, found {', '.join(hidden)} hidden in a "
                "scripted or compiled function, a checkpoint or a fused operation; call it through torch.nn or "
                "torch.nn.functional, or use a method without rules, such as integrated_gradients."
            )
        ruled = [site for site in mode.sites if site.ruled]
        if not ruled:
            if torch.autograd.grad(latents.sum(), leaf, allow_unused=True)[0] is None:
                raise ValueError(no_gradient("no path leads from the latents back to the inputs"))
            raise ValueError(
                f"Expected at least one activation between inputs and latents, found none in "
                f"{type(self.module).__name__}; a rule would change nothing: use input_x_gradient or saliency."
            )
        if rule.per_sample:
            self._find_batch_dimension(ruled, rows)
        if isinstance(rule, RectGrad):
            _warn_narrow(ruled, rule.percentile)
        if isinstance(rule, RectGradModified):
            _check_names(ruled, rule.signed_layers)

    def _find_batch_dimension(self, sites: list[Site], rows: Tensor) -> None:
        """Find which dimension of every activation holds the samples; where two could, run one sample fewer."""
        n = rows.shape[0]
        doubtful = False
        for site in sites:
            exact = [d for d, size in enumerate(site.shape) if size == n]
            multiple = bool(site.shape) and site.shape[0] % n == 0
            if n == 1 or exact == [0]:
                continue
            if not exact and not multiple:
                raise ValueError(_no_batch(site, n))
            if len(exact) == 1 and not multiple:
                site.batch_dim = exact[0]
            else:
                doubtful = doubtful or bool(exact)
        if doubtful:
            self._compare_shapes(sites, rows)

    def _compare_shapes(self, sites: list[Site], rows: Tensor) -> None:
        n = rows.shape[0]
        try:
            inputs = self.pre_activations(rows[: n - 1])
        except Exception:
            return  # the encoder takes this number of rows only: the first dimension it is
        for site in sites:
            fewer = tuple(inputs[site.index][1].shape)
            changed = [d for d, (a, b) in enumerate(zip(site.shape, fewer, strict=True)) if a != b]
            if len(changed) != 1 or (changed[0] and site.shape[changed[0]] != n):
                raise ValueError(_no_batch(site, n))
            site.batch_dim = changed[0]


def _no_batch(site: Site, n: int) -> str:
    return (
        f"Expected one dimension of every activation to hold the {n} samples of the batch, found shape {site.shape} at "
        f"{site.where}; keep the batch in a dimension of its own, the first if possible."
    )


def _check_names(sites: list[Site], names: tuple[str | int, ...]) -> None:
    for name in names:
        if not any(site.answers_to(name) for site in sites):
            raise ValueError(
                f"Expected signed_layers to name activations of the encoder, found {name!r}; there are: "
                + "; ".join(f"{site.index} or {site.path!r} ({site.where})" for site in sites)
                + "."
            )


def _warn_narrow(sites: list[Site], percentile: float) -> None:
    narrow = [site for site in sites if percentile_rank(site.cells, percentile) == 0]
    if not narrow:
        return
    useful = highest_useful_percentile(min(site.cells for site in narrow))
    places = "; ".join(f"{site.where} ({site.cells} cells)" for site in narrow)
    advice = "rectgrad_const has no percentile" if useful is None else f"percentile={useful} would let something pass"
    warnings.warn(
        f"The {percentile:g}th percentile lets nothing pass, so that every map is zero, in {places}; {advice}.",
        UserWarning,
        stacklevel=2,
    )


def _not_a_tensor(latents: Any) -> str:
    kind = type(latents).__name__
    if isinstance(latents, torch.distributions.Distribution):
        fix = "return its mean: def forward(self, x): return self.encoder(x).mean"
    elif isinstance(latents, (tuple, list)):
        inside = ", ".join(type(part).__name__ for part in latents)
        kind = f"{kind} of ({inside})"
        fix = "return the mean alone: def forward(self, x): return self.encoder(x)[0]"
    elif isinstance(latents, dict):
        fix = f"return one entry ({', '.join(map(repr, latents))}): def forward(self, x): return self.encoder(x)[...]"
    else:
        fix = "return the latents as a tensor"
    return (
        f"Expected an encoder that returns one tensor of latents (N, L), found {kind}; wrap it in a torch.nn.Module: "
        f"{fix}."
    )
