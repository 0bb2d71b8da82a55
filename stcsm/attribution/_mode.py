"""The mode that sees what an encoder calls while it runs, and puts backward rules there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode

from stcsm.attribution._activations import IN_PUBLISHED, PLAIN_IN_PUBLISHED, RULED, Call, recognise
from stcsm.attribution._apply import apply_border_mask, apply_rule
from stcsm.attribution._graph import Dependence
from stcsm.attribution._padding import is_padded_convolution
from stcsm.attribution._pooling import apply_redistribution, read_pool
from stcsm.attribution._rules import Rule
from stcsm.attribution._sites import Site, in_checkpoint, locate
from stcsm.attribution._watch import Watch, inside_function

__all__ = ["BaselineMode", "EncoderMode"]


class EncoderMode(TorchFunctionMode):
    """What an encoder's forward pass runs under.

    Parameters
    ----------
    encoder
        The user's module.
    leaf
        Inputs of the pass.
    rule
        Backward rule, or None for the plain gradient.
    published
        Whether activations that the published code does not override pass their plain gradient.
    known
        Sites of an earlier pass; None in the first, which finds them.

    Attributes
    ----------
    sites
        Activations met.
    spared
        Nodes of activations that pass their plain gradient on purpose.
    watch
        Looks at every call of the first pass; None in later ones.
    """

    def __init__(
        self,
        encoder: nn.Module,
        leaf: Tensor,
        rule: Rule | None,
        *,
        published: bool = False,
        known: list[Site] | None = None,
    ) -> None:
        super().__init__()
        self.rule, self.published, self.known = rule, published, known
        self.samples = leaf.shape[0]
        self.sites: list[Site] = []
        self.spared: list[Node] = []
        self._names = {module: name for name, module in encoder.named_modules()}
        self._dependence = Dependence([leaf])
        self.watch = Watch(self._dependence, self._where, ruled=rule is not None) if known is None else None

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
        call = recognise(func, args, kwargs)
        if call is not None:
            return self._activation(call, func, args, kwargs)
        if self.rule.redistributes_pools:
            pool = read_pool(func, args, kwargs)
            if pool is not None and pool.input.requires_grad:
                return apply_redistribution(pool, func(*args, **kwargs))
        result = func(*args, **kwargs)
        if self.rule.masks_borders and is_padded_convolution(func, args, kwargs):
            return apply_border_mask(result)
        return result

    def _where(self) -> str:
        path, kind = locate(self._names)
        return f"module {path!r} ({kind})" if path else f"the encoder's own code ({kind})"

    def _activation(self, call: Call, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        site = self._enter(call)
        if not site.ruled:
            result = func(*args, **kwargs)
            if isinstance(result, Tensor) and result.grad_fn is not None:
                self.spared.append(result.grad_fn)
            return result
        assert self.rule is not None
        result = apply_rule(call, self.rule, site)
        return call.input.copy_(result) if call.inplace else result

    def _enter(self, call: Call) -> Site:
        """Site of a call: found in the first pass, looked up in the later ones."""
        index = len(self.sites)
        if self.known is None:
            site = self._discover(index, call)
        elif index < len(self.known) and self.known[index].activation == call.name:
            site = self.known[index]
            site.batch = self.samples
        else:
            raise ValueError(
                f"Expected the encoder to call the same activations for every batch, found {call.name} as number "
                f"{index + 1}; pass an encoder whose control flow does not depend on the data."
            )
        self.sites.append(site)
        return site

    def _discover(self, index: int, call: Call) -> Site:
        self._refuse_wrapped(call)
        path, kind = locate(self._names)
        same = sum(1 for s in self.sites if (s.path, s.activation) == (path, call.name))
        site = Site(index, call.name, path, kind, tuple(call.input.shape), same + 1, self.samples)
        plain = PLAIN_IN_PUBLISHED if self.published else ()
        ruled = IN_PUBLISHED if self.published else RULED
        site.ruled = call.name not in plain and self._dependence.on_inputs(call.input)
        if site.ruled and call.name not in ruled:
            code = " in the published code (published=True)" if self.published else ""
            raise ValueError(
                f"Expected activations that have a backward rule{code} ({', '.join(ruled)}), found {site.where}; "
                "replace it, or use a method without rules, such as integrated_gradients."
            )
        return site

    def _refuse_wrapped(self, call: Call) -> None:
        """Refuse activations inside what runs them again, or by other means, in the backward pass."""
        function = inside_function()
        if function is not None:
            found = f"the custom autograd function {function}, which has a backward pass of its own"
            fix = "call it outside"
        elif in_checkpoint():
            found, fix = (
                "a checkpoint (torch.utils.checkpoint), which runs it again without the rule",
                "call it outside",
            )
        elif torch._C._functorch.is_functorch_wrapped_tensor(call.input):
            found, fix = "torch.vmap or another torch.func transform", "run the encoder on the batch itself"
        else:
            return
        raise ValueError(
            f"Expected activations within reach of a rule, found {call.name} in {self._where()} inside {found}; {fix}, "
            "or use a method without rules, such as integrated_gradients."
        )


class BaselineMode(TorchFunctionMode):
    """Records what enters every activation while the encoder runs on the baseline."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[tuple[str, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Keep a copy of an activation's argument, which the encoder may change in place."""
        kwargs = kwargs or {}
        call = recognise(func, args, kwargs)
        if call is not None:
            self.inputs.append((call.name, call.input.detach().clone()))
        return func(*args, **kwargs)
