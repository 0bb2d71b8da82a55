"""Sites: the places in an encoder's forward pass where an activation is called."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["Site", "in_checkpoint", "locate"]


@dataclass
class Site:
    """One call of an activation in the forward pass.

    Attributes
    ----------
    index
        Place among the activations of the pass, from 0.
    activation
        Its name.
    path, kind
        Dotted name and class of the module whose code makes the call; the path of the encoder itself is empty.
    occurrence
        Which of that module's calls of that activation, from 1.
    shape
        Of its argument, in the first pass.
    batch, batch_dim
        Number of samples of the pass at hand, and the dimension that holds them.
    ruled
        Whether the rule applies: the argument depends on the inputs.
    """

    index: int
    activation: str
    path: str
    kind: str
    shape: tuple[int, ...]
    occurrence: int = 1
    batch: int = 1
    batch_dim: int = 0
    ruled: bool = True

    @property
    def where(self) -> str:
        """Text for a message."""
        place = f"module {self.path!r} ({self.kind})" if self.path else f"the encoder's own code ({self.kind})"
        return f"{self.activation} in {place}" + (f", call {self.occurrence}" if self.occurrence > 1 else "")

    @property
    def cells(self) -> int:
        """Cells of one sample."""
        total = 1
        for size in self.shape:
            total *= size
        return total // self.batch

    def answers_to(self, name: str | int) -> bool:
        """Whether a user's name means this site: its index, its path, or a whole part of its path."""
        if isinstance(name, int):
            return name == self.index
        return f".{name}." in f".{self.path}."

    def by_sample(self, values: Tensor) -> Tensor:
        """Lay (…) out as (batch, cells of a sample)."""
        return values.movedim(self.batch_dim, 0).reshape(self.batch, -1)

    def from_sample(self, rows: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`by_sample`."""
        moved = like.movedim(self.batch_dim, 0)
        return rows.reshape(moved.shape).movedim(0, self.batch_dim)


def locate(names: dict[nn.Module, str]) -> tuple[str, str]:
    """Find the module whose code is running.

    Walking the stack, and not hooking the modules, leaves the user's encoder untouched.

    Parameters
    ----------
    names
        Every module of the encoder and its dotted name.

    Returns
    -------
    tuple of str
        Dotted name and class name.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(owner, nn.Module) and owner in names:
            return names[owner], type(owner).__name__
        frame = frame.f_back  # type: ignore[assignment]
    return "", "?"


def in_checkpoint() -> bool:
    """Whether the running code was called by a checkpoint."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint":
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
