"""The mean of attributions over samples, in bounded memory."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm.auto import tqdm

from stcsm.attribution._arguments import Arguments, check_positive_integer, read_concepts
from stcsm.attribution._attribute import attribute, directions_of, make_method, maps_of_concepts, method_class
from stcsm.attribution._checks import Dependence, parents
from stcsm.attribution._evaluating import evaluation_mode, sealed_generators
from stcsm.attribution._forward import Encoder
from stcsm.nets import AffineFunction

__all__ = ["mean_attribution"]

CHUNK_VALUES = 2**25
"""Values, of attributions or of what a pass makes of its inputs, that a mean holds at once."""
HELD = 4
"""Arrays of the inputs' size that a pass holds where gradients are summed behind the first network layer."""


def mean_attribution(
    encoder: nn.Module,
    batches: Any,
    concepts: Any,
    method: str = "saliency",
    *,
    batch_size: int = 256,
    progress: bool = False,
    **params: Any,
) -> np.ndarray:
    """Mean over samples of the attributions of each concept, in bounded memory.

    A method that is linear in the concept attributes the latents once, however many concepts there are. So the maps of
    the latents themselves, ``concepts=torch.eye(L)``, give those of any concepts as ``concepts @ maps``.

    Parameters
    ----------
    encoder, concepts, method, **params
        As for :func:`attribute`, but without parameters that hold a value for each sample (a baseline for each input,
        given noise). SmoothGrad's ``published=True`` takes the range of 64 samples at a time, as they come.
    batches
        Samples, (N, ...), or an iterable of batches (n_i, ...), which is read one batch at a time. Batches may be on
        any device.
    batch_size
        Most samples in one pass of the encoder. Fewer go through together where their attributions are many.
    progress
        Whether to show a progress bar over passes.

    Returns
    -------
    numpy.ndarray
        float64, (...) for one concept (L,), (K, ...) for (K, L). A sample's attributions have the inputs' precision;
        sums and products are in float64. The noise of a stochastic method depends on a sample's number over all
        batches.

    Raises
    ------
    TypeError, ValueError
        As :func:`attribute`; or there is no sample.
    """
    check_positive_integer(batch_size, "batch_size")
    cls = method_class(method)
    vectors, single = read_concepts(concepts, torch.empty(0, dtype=torch.float64, device="cpu"))
    vectors = vectors.cpu()
    directions = directions_of(cls, vectors)
    first, seen = params.pop("first", 0) if cls.stochastic else 0, 0
    together = make_method(method, params).together
    gradients = None
    if cls.is_gradient:  # its parameters change nothing
        gradients = _GradientSums(encoder, directions)
    total: Any = 0.0

    def held() -> int:
        return HELD if gradients is not None and gradients.are_narrow else len(directions)

    with tqdm(desc=method, unit="batch", disable=not progress, leave=False) as shown:
        for rows in _chunks(batches, held, int(batch_size)) if together is None else _groups(batches, together):
            if gradients is not None:
                gradients.add(rows)
            else:
                own = {"first": first + seen, **params} if cls.stochastic else params
                at_once = len(directions)
                if together is not None:
                    at_once = max(1, CHUNK_VALUES // math.prod(rows.shape))
                sums = [
                    torch.as_tensor(
                        attribute(encoder, rows, some, method, batch_size=min(len(rows), int(batch_size)), **own),
                        device="cpu",
                    )
                    .double()
                    .sum(dim=0)
                    for some in directions.split(at_once)
                ]
                total = total + torch.cat(sums)
            seen += len(rows)
            shown.update()
    if not seen:
        raise ValueError("Expected at least one sample to average over, found none.")
    if gradients is not None:
        total = gradients.total()
    mean = total / seen if directions is vectors else maps_of_concepts(vectors, total[None] / seen)[0]
    return (mean[0] if single else mean).numpy()


def _chunks(batches: Any, held: Callable[[], int], most: int) -> Iterator[Any]:
    """Samples a few at a time, so that the ``held()`` values for each of theirs stay below :data:`CHUNK_VALUES`."""
    for batch in _read(batches):
        start = 0
        while start < len(batch):
            step = int(np.clip(CHUNK_VALUES // max(1, held() * math.prod(batch.shape[1:])), 1, most))
            yield batch[start : start + step]
            start += step


def _groups(batches: Any, size: int) -> Iterator[Any]:
    """Samples ``size`` at a time, the last fewer, in whatever batches they come."""
    held: list[Any] = []
    for batch in _read(batches):
        for row in batch:
            held.append(row)
            if len(held) == size:
                yield _stacked(held)
                held = []
    if held:
        yield _stacked(held)


def _stacked(rows: list[Any]) -> Any:
    return torch.stack(rows) if isinstance(rows[0], Tensor) else np.stack(rows)


def _read(batches: Any) -> Iterator[Any]:
    for batch in [batches] if isinstance(batches, (Tensor, np.ndarray)) else batches:
        if not isinstance(batch, (Tensor, np.ndarray)):
            raise TypeError(f"Expected batches of samples as tensors or arrays (n, ...), found {type(batch).__name__}.")
        yield batch


# ---------------------------------------------------------------------------------------------------------------------
# Sums of gradients

# fmt: off
AFFINE = frozenset({
    "clone", "alias", "to_copy", "add", "sub", "mm", "addmm", "sparse_addmm", "t", "transpose", "permute", "view",
    "unsafe_view", "reshape_alias", "convolution", "constant_pad_nd", "squeeze", "unsqueeze",
})
# fmt: on
"""Nodes of the autograd graph whose backward pass is the same for every sample, whatever the samples are."""


class _GradientSums:
    """Sums over samples of the gradients of the scores of D directions.

    Where an encoder begins with an affine layer that narrows a sample down, such as a dense network layer, gradients
    are summed behind that layer, a few numbers each, and go back through it once: its backward pass is the same for
    every sample. What the sums cost is then little more than the passes forwards.

    Parameters
    ----------
    encoder
        The user's module.
    directions
        (D, L), float64.
    """

    def __init__(self, encoder: nn.Module, directions: Tensor) -> None:
        self.encoder, self.directions = encoder, directions
        self._wide: Any = 0.0
        self._narrow: Any = None
        # Found by the first samples: the encoder, as the methods see it, and the way to what is narrow.
        self._run: Encoder | None = None
        self._way: tuple[str, ...] = ()
        self._some: Tensor | None = None

    @property
    def are_narrow(self) -> bool:
        """Whether gradients are summed behind the first network layer."""
        return bool(self._way)

    def add(self, rows: Any) -> None:
        """Add the gradients of some samples, (n, ...)."""
        with torch.inference_mode(False):
            given = Arguments.read(self.encoder, rows, self.directions, len(rows))
            vectors, x = given.vectors.to(given.device), given.x.to(given.device).contiguous()
            with evaluation_mode(self.encoder, given.device), sealed_generators(given.device) as seal:
                if self._run is None:
                    self._run = Encoder(self.encoder, vectors.shape[1], len(rows), seal)
                    self._run(x[:2])  # what the engine cannot explain is refused
                    found = self._pass(self._run, x[:2])
                    self._way = found.way if found.way and _is_row_wise(found.narrow, found.leaf) else ()
                found = self._pass(self._run, x)
                narrow = bool(found.way) and found.way == self._way
                wrt = found.narrow if narrow else found.leaf
                sums = [_double(g).sum(dim=0).cpu() for g in self._run.backward(wrt, found.latents, vectors)]
                if narrow:
                    self._narrow = torch.stack(sums) + (0.0 if self._narrow is None else self._narrow)
                    self._some = x[: len(vectors)]
                else:
                    self._wide = self._wide + torch.stack(sums)

    def _pass(self, run: Encoder, x: Tensor) -> _Pass:
        leaf = x.clone().requires_grad_()
        with _Neck(leaf) as neck:
            latents = run.call(leaf)
        latents = run.checked(latents, leaf)
        narrow = leaf if neck.found is None else neck.found
        return _Pass(leaf, latents, narrow, () if neck.found is None else _way(narrow, leaf, latents))

    def total(self) -> Tensor:
        """The sums, (D, ...), float64 on the CPU."""
        if self._run is None or self._some is None:
            return self._wide
        device = self._some.device
        with torch.inference_mode(False), evaluation_mode(self.encoder, device), sealed_generators(device):
            found = self._pass(self._run, self._some)
            if found.way != self._way:  # so many samples as there are hidden units can be mistaken for them
                found = self._pass(self._run, self._some[:1])
            parts = []
            for some in self._narrow.split(len(found.leaf)):
                signal = torch.zeros_like(found.narrow)
                signal[: len(some)] = some.to(signal)
                (back,) = torch.autograd.grad(found.narrow, found.leaf, signal, retain_graph=True)
                parts.append(back[: len(some)].cpu().double())
        return torch.cat(parts) + self._wide


def _double(tensor: Tensor) -> Tensor:
    """In float64, which MPS does not have."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


class _Pass(NamedTuple):
    """Inputs and latents of a pass, the narrow tensor between them, and the way there (empty: none was found)."""

    leaf: Tensor
    latents: Tensor
    narrow: Tensor
    way: tuple[str, ...]


class _Neck(TorchFunctionMode):
    """Finds the first tensor of a pass that has a row for each sample and fewer values than the inputs."""

    def __init__(self, leaf: Tensor) -> None:
        super().__init__()
        self._leaf, self._dependence = leaf, Dependence(leaf)
        self.found: Tensor | None = None

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let a call through, and look at its result."""
        result = func(*args, **(kwargs or {}))
        if (
            self.found is None
            and isinstance(result, Tensor)
            and result.ndim > 1
            and len(result) == len(self._leaf)
            and result.numel() < self._leaf.numel()
            and self._dependence.through_autograd(result)
        ):
            self.found = result
        return result


def _way(neck: Tensor, leaf: Tensor, latents: Tensor) -> tuple[str, ...]:
    """Operations between the inputs and a tensor; none where they are not affine, or the latents know a way around."""
    dependence, way = Dependence(leaf), []
    node = neck.grad_fn
    while node is not None and not hasattr(node, "variable"):
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"Backward\d*$", "", node.name())).lower()
        ours = issubclass(getattr(node, "_forward_cls", object), AffineFunction)
        before = [parent for parent in parents(node) if dependence.of_node(parent)]
        if not (ours or name in AFFINE) or len(before) != 1:
            return ()
        way.append(name)
        node = before[0]
    stack, known = [latents.grad_fn], {neck.grad_fn}
    while stack:
        node = stack.pop()
        if node is None or node in known or not dependence.of_node(node):
            continue
        if hasattr(node, "variable"):
            return ()
        known.add(node)
        stack.extend(parents(node))
    return tuple(way)


def _is_row_wise(neck: Tensor, leaf: Tensor) -> bool:
    """Whether what is sent back from the first row arrives in the first row alone."""
    signal = torch.zeros_like(neck)
    signal[0] = 1
    (back,) = torch.autograd.grad(neck, leaf, signal, retain_graph=True)
    return not bool(back[1:].any())
