"""The user's module while it runs, in evaluation mode, in many threads at once if need be, and as it was afterwards."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

__all__ = ["evaluation_mode", "sealed_generators"]

_LOCK = threading.Lock()
# Module -> how many calls hold it in evaluation mode, and its flag before the first of them.
_HELD: weakref.WeakKeyDictionary[nn.Module, tuple[int, bool]] = weakref.WeakKeyDictionary()


def _hold(modules: list[nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            depth, flag = _HELD.get(module, (0, module.training))
            _HELD[module] = (depth + 1, flag)
            module.training = False


def _release(modules: list[nn.Module]) -> None:
    with _LOCK:
        for module in modules:
            depth, flag = _HELD[module]
            if depth > 1:
                _HELD[module] = (depth - 1, flag)
            else:
                del _HELD[module]
                module.training = flag


@contextmanager
def evaluation_mode(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    """Put every submodule into evaluation mode, autograd on, autocast off; afterwards all is as before.

    The flags are set one by one, not through ``encoder.eval()``, which a module may override with side effects. Calls
    on one module may overlap in threads: the first saves its flag, the last restores it.

    Parameters
    ----------
    encoder
        The module.
    device
        Where its parameters are.
    """
    modules = list(encoder.modules())
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {device.type, "cpu"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        _hold(modules)
        try:
            yield
        finally:
            _release(modules)


class sealed_generators:  # noqa: N801 - a context manager, used as one
    """Restores torch's global generators if the encoder was seen to draw from them.

    Only then, because another thread of the user's may have drawn in the meantime, and must not draw the same again.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = None if device.type in ("cpu", "meta") else device
        self.drawn = False

    def states(self) -> list[torch.Tensor]:
        """State of every generator that an encoder on the device may use."""
        there = [] if self._device is None else [torch.get_device_module(self._device).get_rng_state(self._device)]
        return [torch.get_rng_state(), *there]

    def compare(self, before: list[torch.Tensor]) -> None:
        """Note whether the generators have moved since."""
        self.drawn |= any(not torch.equal(a, b) for a, b in zip(before, self.states(), strict=True))

    def __enter__(self) -> sealed_generators:
        """Remember the states."""
        self._before = self.states()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore them."""
        if self.drawn:
            torch.set_rng_state(self._before[0])
            if self._device is not None:
                torch.get_device_module(self._device).set_rng_state(self._before[1], self._device)
