"""Running the user's encoder: what sees the activations of a forward pass and puts a rule there."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from stcsm.attribution._calls import IN_PUBLISHED, PLAIN_IN_PUBLISHED, Call
from stcsm.attribution._checks import (
    Dependence,
    Trial,
    Watch,
    inside_function,
    no_gradient,
    read_latents,
    warn_user,
)
from stcsm.attribution._evaluating import sealed_generators

__all__ = ["Encoder", "Site"]

T = TypeVar("T")
Point = Callable[[int], Tensor]


# ---------------------------------------------------------------------------------------------------------------------
# Sites of activations


@dataclass(frozen=True)
class Site:
    """One call of an activation in a forward pass.

    Attributes
    ----------
    index
        Number among the activations of the pass, from 0.
    activation
        Its name.
    path, kind
        Dotted name and class of the module whose code makes the call; the path of the encoder itself is empty.
    occurrence
        Which of that module's calls of that activation, from 1.
    shape
        Of its argument.
    function
        The activation as a function of one argument.
    ruled
        Whether the rule applies: the argument depends on the inputs.
    at_baseline
        What entered the activation in the baseline's pass, where the method has a baseline.
    """

    index: int
    activation: str
    path: str
    kind: str
    occurrence: int
    shape: tuple[int, ...]
    function: Callable[[Tensor], Tensor]
    ruled: bool
    at_baseline: Tensor | None = None

    @property
    def where(self) -> str:
        """Text for a message."""
        said = f"{self.activation} in {_module(self.path, self.kind)}"
        return said + (f", call {self.occurrence}" if self.occurrence > 1 else "")

    @property
    def cells(self) -> int:
        """Cells of one sample, the batch being the first dimension."""
        return math.prod(self.shape[1:])

    def answers_to(self, name: str | int) -> bool:
        """Whether a user's name means this site: its index, its path, or a whole part of its path."""
        if isinstance(name, str):
            return f".{name}." in f".{self.path}."
        return name == self.index


def _module(path: str, kind: str) -> str:
    return f"module {path!r} ({kind})" if path else f"the encoder's own code ({kind})"


def _locate(names: dict[nn.Module, str]) -> tuple[str, str]:
    """Dotted name and class of the module whose code is running.

    Walking the stack, and not hooking the modules, leaves the user's encoder untouched.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(owner, nn.Module) and owner in names:
            return names[owner], type(owner).__name__
        frame = frame.f_back  # type: ignore[assignment]
    return "", "?"


def _in_checkpoint() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Rules, and the modes that put them into a pass


class Rule(Protocol):
    """What a forward pass needs of a backward rule; :class:`stcsm.attribution.RuleMethod` says what each part is."""

    @property
    def published(self) -> bool: ...
    @property
    def allow(self) -> Sequence[str]: ...
    @property
    def per_sample(self) -> bool: ...
    def keep(self, x: Tensor, a: Tensor, site: Site) -> Tensor | None: ...
    def passed_back(self, R: Tensor, kept: Tensor | None, site: Site) -> Tensor: ...
    def around(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any: ...
    def check_sites(self, sites: list[Site]) -> None: ...


class _Ruled(torch.autograd.Function):
    """An activation forwards, a rule backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, rule: Rule, site: Site) -> Tensor:
        a = call.plain(x)
        kept = rule.keep(x, a, site)
        # The encoder may change its tensors in place afterwards; torch forbids that only where it saved them itself.
        if kept is x or (kept is a and not (call.result_is_saved or call.inplace)):
            kept = kept.clone()
        ctx.rule, ctx.site = rule, site
        if kept is not None:
            ctx.save_for_backward(kept)
        return a

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, R: Tensor) -> tuple[Tensor | None, ...]:
        kept = ctx.saved_tensors[0] if ctx.saved_tensors else None
        return ctx.rule.passed_back(R, kept, ctx.site), None, None, None


class _Forward(TorchFunctionMode):
    """What an encoder's forward pass runs under.

    Parameters
    ----------
    encoder
        The user's module.
    leaf
        Inputs of the pass.
    rule
        What activations pass back, or None for the plain gradient.
    known
        Sites of an earlier pass; None in the first, which finds them and is watched.
    at_baseline
        Name and argument of every activation in the baseline's pass; None where the method has no baseline.

    Attributes
    ----------
    sites
        Activations met.
    watch
        Looks at every call of the first pass; None in later ones.
    """

    def __init__(
        self,
        encoder: nn.Module,
        leaf: Tensor,
        rule: Rule | None,
        known: list[Site] | None = None,
        at_baseline: list[tuple[str, Tensor]] | None = None,
    ) -> None:
        super().__init__()
        self.rule, self.known, self.at_baseline = rule, known, at_baseline
        self.sites: list[Site] = []
        self._names = {module: name for name, module in encoder.named_modules()}
        self.dependence = Dependence(leaf)
        self.watch = None
        if known is None:
            self.watch = Watch(
                self.dependence, lambda: _module(*_locate(self._names)), None if rule is None else rule.allow
            )

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let a call through, with a rule where there is one for it."""
        kwargs = kwargs or {}
        if self.watch is not None:
            return self.watch.call(func, args, kwargs, lambda: self._make(func, args, kwargs))
        return self._make(func, args, kwargs)

    def _make(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.rule is None:
            return func(*args, **kwargs)
        call = Call.read(func, args, kwargs, self.rule.allow)
        if call is None:
            return self.rule.around(func, args, kwargs, lambda: func(*args, **kwargs))
        site = self._enter(call)
        if not site.ruled:
            return func(*args, **kwargs)
        result = _Ruled.apply(call.input, call, self.rule, site)
        return call.input.copy_(result) if call.inplace else result

    def _enter(self, call: Call) -> Site:
        """Site of a call: found in the first pass, looked up in the later ones."""
        index, shape = len(self.sites), tuple(call.input.shape)
        if self.known is None:
            site = self._discover(index, call)
        elif index < len(self.known) and self.known[index].activation == call.name:
            site = dataclasses.replace(self.known[index], shape=shape, function=call.plain)
        else:
            raise ValueError(
                f"Expected the encoder to call the same activations for every batch, found {call.name} as number "
                f"{index + 1}; pass an encoder whose control flow does not depend on the data."
            )
        if self.at_baseline is not None and site.ruled:
            name, x0 = self.at_baseline[index] if index < len(self.at_baseline) else ("nothing", call.input[:0])
            if name != call.name or x0.shape != shape:
                raise ValueError(
                    f"Expected the encoder to call the same activations for the baseline as for the samples, found "
                    f"{name} of shape {tuple(x0.shape)} in place of {site.where} of shape {shape}; pass an encoder "
                    "whose control flow does not depend on the data."
                )
            site = dataclasses.replace(site, at_baseline=x0)
        self.sites.append(site)
        return site

    def _discover(self, index: int, call: Call) -> Site:
        assert self.rule is not None
        self._refuse_out_of_reach(call, self.rule.allow)
        ruled = torch.is_grad_enabled() and self.dependence.through_autograd(call.input)
        path, kind = _locate(self._names)
        same = sum(1 for s in self.sites if (s.path, s.activation) == (path, call.name))
        if self.rule.published and call.name in PLAIN_IN_PUBLISHED:
            ruled = False
        site = Site(index, call.name, path, kind, same + 1, tuple(call.input.shape), call.plain, ruled)
        if ruled and self.rule.published and call.name not in IN_PUBLISHED:
            raise ValueError(
                "Expected activations that have a backward rule in the published code (published=True: "
                f"{', '.join(IN_PUBLISHED)}), found {site.where}; replace it, leave published=True out, or use a "
                "method without rules, such as integrated_gradients."
            )
        return site

    def _refuse_out_of_reach(self, call: Call, allow: Sequence[str]) -> None:
        """Refuse activations inside what runs them again, or by other means, in the backward pass."""
        function = inside_function()
        if _in_checkpoint():
            found = "a checkpoint (torch.utils.checkpoint), which runs it again without the rule"
            fix = "call it outside"
        elif function is not None and function not in allow:
            found = f"the custom autograd function {function}, which has a backward pass of its own"
            fix = f"call it outside, pass allow=({function!r},) if the function's own backward pass is wanted"
        elif torch._C._functorch.is_functorch_wrapped_tensor(call.input):
            found, fix = "torch.vmap or another torch.func transform", "run the encoder on the batch itself"
        else:
            return
        raise ValueError(
            f"Expected activations within reach of a rule, found {call.name} in {_module(*_locate(self._names))} "
            f"inside {found}; {fix}, or use a method without rules, such as integrated_gradients."
        )


class _Recorder(TorchFunctionMode):
    """Records what enters every activation, which the encoder may change in place afterwards."""

    def __init__(self, allow: Sequence[str], keep: Callable[[Tensor], T]) -> None:
        super().__init__()
        self._allow, self._keep = allow, keep
        self.entered: list[tuple[str, T]] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Record, and let the call through."""
        kwargs = kwargs or {}
        call = Call.read(func, args, kwargs, self._allow)
        if call is not None:
            self.entered.append((call.name, self._keep(call.input)))
        return func(*args, **kwargs)


# ---------------------------------------------------------------------------------------------------------------------
# The encoder


class Encoder:
    """The user's encoder, as the methods see it.

    Parameters
    ----------
    module
        The user's module.
    latent_dim
        Components of the concept vectors, which the latents must have too.
    batch_size
        Most rows of one pass.
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
        batch_size: int,
        seal: sealed_generators,
        *,
        several_batches: bool = False,
        advance: Callable[[int], object] = lambda n: None,
    ) -> None:
        self.module, self.latent_dim, self.batch_size, self.advance = module, latent_dim, batch_size, advance
        self._seal, self._several_batches = seal, several_batches
        # Found by the first pass.
        self._sites: list[Site] | None = None
        self._one_variant_a_pass = False

    def __call__(self, rows: Tensor, rule: Rule | None = None, baseline: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run a batch.

        Parameters
        ----------
        rows
            (n, ...), on the encoder's device.
        rule
            What activations pass back instead of their gradient.
        baseline
            (n, ...), where the rule compares the samples' activations with those of a baseline.

        Returns
        -------
        leaf, latents
            What to differentiate with respect to, (n, ...), and the latents, (n, L).
        """
        leaf = rows.detach().clone().requires_grad_()
        first = self._sites is None
        if not first and rule is None:
            return leaf, self.checked(self.call(leaf), leaf)
        at_baseline = None
        if rule is not None and baseline is not None:
            at_baseline = self._record(baseline, rule.allow, lambda x: x.detach().clone())[1]
        mode = _Forward(self.module, leaf, rule, self._sites, at_baseline)
        with mode:
            latents = self.call(leaf)
        latents = self.checked(latents, leaf, () if mode.watch is None else mode.watch.cuts)
        if mode.watch is not None:
            self._first_pass(mode, mode.watch, rows, leaf, latents)
            self._sites = [dataclasses.replace(site, at_baseline=None) for site in mode.sites]
        elif self._sites is not None and len(mode.sites) != len(self._sites):
            raise ValueError(
                f"Expected the encoder to call the same activations for every batch, found {len(mode.sites)} of "
                f"{len(self._sites)}; pass an encoder whose control flow does not depend on the data."
            )
        return leaf, latents

    def latents(self, rows: Tensor) -> Tensor:
        """Latents alone, (n, L), without autograd."""
        if self._sites is None:
            return self(rows)[1].detach()
        with torch.no_grad():
            return self.checked(self.call(rows), rows, with_gradient=False)

    @staticmethod
    def backward(leaf: Tensor, latents: Tensor, directions: Tensor) -> Iterator[Tensor]:
        """Signals that arrive at the inputs, one backward pass for each direction.

        Parameters
        ----------
        leaf, latents
            Of one pass.
        directions
            (D, L).

        Yields
        ------
        torch.Tensor
            (n, ...).
        """
        last = len(directions) - 1
        for d, direction in enumerate(directions):
            (signal,) = torch.autograd.grad(
                latents, leaf, direction.expand_as(latents), retain_graph=d < last, allow_unused=True
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
            # The first pass of all is of one variant: it finds out whether the encoder treats rows alike.
            alone = self._one_variant_a_pass or self._sites is None
            many = 1 if alone else min(max(1, self.batch_size // rows), count - done)
            which = range(done, done + many)
            yield which, run(torch.cat([point(i) for i in which]))
            self.advance(many)
            done += many

    def call(self, rows: Tensor) -> Any:
        """Whatever the module returns, (n, L) if all is well."""
        # A copy, because an encoder may begin with an operation in place, which autograd refuses on a leaf.
        return self.module(rows.clone())

    def _record(
        self, rows: Tensor, allow: Sequence[str], keep: Callable[[Tensor], T]
    ) -> tuple[Tensor, list[tuple[str, T]]]:
        """Latents of a pass without a rule, and something of what entered every activation, in order."""
        # With autograd, because what a call is may hang on whether an operand carries a gradient.
        leaf = rows.detach().clone().requires_grad_()
        with _Recorder(allow, keep) as recorder:
            latents = self.call(leaf)
        return self.checked(latents, leaf).detach(), recorder.entered

    def checked(self, latents: Any, leaf: Tensor, cuts: Sequence[str] = (), *, with_gradient: bool = True) -> Tensor:
        """Latents of a pass, or say what is wrong with them."""
        latents = read_latents(latents, leaf.shape[0], self.latent_dim, leaf.dtype)
        if with_gradient and not latents.requires_grad:
            raise ValueError(no_gradient("its latents carry no gradient" + (f" ({cuts[0]})" if cuts else "")))
        finite = latents.detach().isfinite().all(dim=1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0, 0])
            raise ValueError(
                f"Expected finite latents, found {latents[row].detach().tolist()} at row {row} of a batch; "
                "bring the inputs to the encoder's range."
            )
        return latents

    def _first_pass(self, mode: _Forward, watch: Watch, rows: Tensor, leaf: Tensor, latents: Tensor) -> None:
        """Refuse encoders that the engine cannot explain."""
        if watch.cuts:
            warn_user(
                f"A part of what the latents are made of leaves autograd: {'; '.join(dict.fromkeys(watch.cuts))}. The "
                "maps leave out what runs through it; remove torch.no_grad() and detach() if it should count."
            )
        allow = () if mode.rule is None else mode.rule.allow

        def run(some: Tensor) -> tuple[Tensor, list[tuple[int, ...]]]:
            z, entered = self._record(some, allow, lambda x: tuple(x.shape))
            return z, [shape for _, shape in entered]

        trial = Trial.of(self.module, run, rows, latents, self._seal)
        if trial.tied_to_rows and self._several_batches:
            raise ValueError(
                f"Expected an encoder that treats every row of a batch alike, found that equal samples get unequal "
                f"latents in different rows, so that the batches of {rows.shape[0]} would matter; pass a batch_size of "
                "at least the number of inputs, or take what is held for each row out of the encoder."
            )
        self._one_variant_a_pass = trial.tied_to_rows or not trial.any_number
        if mode.rule is not None:
            self._check_rule(mode, watch, mode.rule, trial, leaf, latents)

    def _check_rule(
        self, mode: _Forward, watch: Watch, rule: Rule, trial: Trial, leaf: Tensor, latents: Tensor
    ) -> None:
        watch.check_path(latents)
        ruled = [site for site in mode.sites if site.ruled]
        if not ruled:
            if torch.autograd.grad(latents.sum(), leaf, allow_unused=True)[0] is None:
                raise ValueError(no_gradient("no path leads from the latents back to the inputs"))
            raise ValueError(
                f"Expected at least one activation between inputs and latents, found none in "
                f"{type(self.module).__name__}; a rule would change nothing: use input_x_gradient or saliency."
            )
        if rule.per_sample:
            for site in ruled:
                elsewhere = trial.shapes[site.index] if site.index < len(trial.shapes) else site.shape
                if site.shape[:1] != leaf.shape[:1] or elsewhere[:1] != (trial.rows,):
                    raise ValueError(
                        f"Expected every activation to hold the {len(leaf)} samples of the batch in its first "
                        f"dimension, one in each row, found shape {site.shape} at {site.where}; bring the batch to the "
                        "first dimension, and nothing else into it (batch_first=True, unflatten), before the "
                        "activation, or use rectgrad_const, which looks at every cell by itself."
                    )
        rule.check_sites(ruled)
