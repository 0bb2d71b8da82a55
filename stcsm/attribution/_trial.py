"""A trial of the encoder on two rows: whether latents depend on their own sample alone, and which cells are whose.

Two samples go through once as they are and once with the second replaced by the first. What changes in the first
sample's latents is chance or the company it keeps; what differs between two equal samples is tied to their places; and
the cells of an activation that change belong to the second sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stcsm.attribution._evaluating import sealed_generators
from stcsm.attribution._sites import Site

__all__ = ["Trial", "close"]

# What the encoder gives for some rows: latents, and what entered every activation.
Run = Callable[[Tensor], tuple[Tensor, list[tuple[str, Tensor]]]]


def close(a: Tensor, b: Tensor, rounding: float) -> bool:
    """Whether two results are equal but for rounding, on the scale of the values themselves.

    Parameters
    ----------
    a, b
        Of one shape.
    rounding
        Difference allowed in single precision, as a share of the largest value; more in half precision.
    """
    share = max(rounding, 16 * torch.finfo(a.dtype).eps)
    return bool((a - b).abs().max() <= share * torch.maximum(a.abs().max(), b.abs().max()))


@dataclass
class Trial:
    """Results for rows and for as many copies of the first.

    Attributes
    ----------
    rows
        Samples that ran.
    mixed, copies
        Latents and pre-activations of the samples, and of the first sample repeated.
    """

    rows: int
    mixed: tuple[Tensor, list[tuple[str, Tensor]]]
    copies: tuple[Tensor, list[tuple[str, Tensor]]]

    @classmethod
    def of(cls, module: nn.Module, run: Run, rows: Tensor, latents: Tensor, seal: sealed_generators) -> Trial | None:
        """Run the trial and judge the latents.

        Parameters
        ----------
        module
            The user's, to name a layer in a message.
        run
            Runs it.
        rows, latents
            A batch (n, ...), and what it gave, (n, L).
        seal
            Told whether the encoder moves the global generators.

        Returns
        -------
        Trial or None
            None where the encoder refuses other rows than the batch's.

        Raises
        ------
        ValueError
            Latents change from call to call, or with the rest of the batch.
        """
        before = seal.states()
        pair, partner = _pair(rows)
        latents = latents.detach()
        mixed = _attempt(run, pair)
        if mixed is not None:
            expected = latents[:1] if partner is None else latents[[0, partner]]
            same = close(mixed[0][: len(expected)], expected, 1e-2)  # other sizes take other paths through BLAS
        else:  # an encoder for this number of rows only
            pair, mixed = rows, run(rows)
            same = close(mixed[0], latents, 1e-3)
        seal.compare(before)
        copies = _attempt(run, pair[:1].expand_as(pair))
        if same and (copies is None or close(copies[0][0], mixed[0][0], 1e-3)):
            return None if copies is None else cls(len(pair), mixed, copies)
        # Several times, because a draw may be a coin that falls the same way twice.
        if not all(close(run(pair)[0], mixed[0], 1e-3) for _ in range(8)):
            raise ValueError(
                "Expected an encoder that gives the same latents every time, found that they change from call to call "
                "in evaluation mode; it draws random numbers: return the mean of the latents, not a sample, and pass "
                "training=self.training to functional dropout."
            )
        layer = _without_statistics(module)
        raise ValueError(
            "Expected latents of a sample that do not depend on the rest of its batch, found that they do"
            + (f" (batch statistics in {layer}; build it with track_running_stats=True and train it)." if layer else "")
            + ("" if layer else "; take statistics over the features of a sample, or fix them after training.")
        )

    @property
    def tied_to_rows(self) -> bool:
        """Whether equal samples have unequal latents in different places of the batch."""
        latents = self.copies[0]
        return not close(latents, latents[:1].expand_as(latents), 1e-3)

    def find_batch_dimension(self, site: Site) -> None:
        """Find which dimension of an activation holds the samples, one after another, alone or with others folded in.

        Raises
        ------
        ValueError
            None does.
        """
        n, shape = site.batch, site.shape
        a, b = self.mixed[1][site.index][1], self.copies[1][site.index][1]
        if a.shape == b.shape and a.ndim == len(shape):
            changed = (a - b).abs() > 1e-3 * torch.maximum(a.abs().max(), b.abs().max())
            for dim, size in enumerate(shape):
                rows = a.shape[dim]
                if size % n or rows % self.rows or size // n != rows // self.rows:
                    continue
                if n != self.rows and shape[:dim] + shape[dim + 1 :] != a.shape[:dim] + a.shape[dim + 1 :]:
                    continue
                by_sample = changed.movedim(dim, 0).reshape(self.rows, -1)
                if not by_sample[0].any() and (by_sample.any() == changed.any()):
                    site.batch_dim = dim
                    return
        raise ValueError(
            f"Expected one dimension of every activation to hold the {n} samples of the batch, one after another, "
            f"found shape {shape} at {site.where}; keep the batch in a dimension of its own, the first if possible."
        )


def _pair(rows: Tensor) -> tuple[Tensor, int | None]:
    """First row and the first that differs from it, with its place; else half of the first."""
    other = (rows != rows[:1]).flatten(1).any(dim=1).nonzero()
    if len(other):
        partner = int(other[0, 0])
        return rows[[0, partner]], partner
    return torch.cat([rows[:1], rows[:1] / 2]), None


def _attempt(run: Run, rows: Tensor) -> tuple[Tensor, list[tuple[str, Tensor]]] | None:
    try:
        return run(rows)
    except Exception:  # whatever an encoder says when it does not like the number of rows
        return None


def _without_statistics(module: nn.Module) -> str | None:
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    for name, layer in module.named_modules():
        if isinstance(layer, kinds[0]) and not isinstance(layer, kinds[1]) and layer.running_mean is None:
            return f"module {name!r} ({type(layer).__name__})" if name else type(layer).__name__
    return None
