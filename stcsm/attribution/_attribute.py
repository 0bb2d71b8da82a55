"""The one entry: attributions of concepts to an encoder's inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from stcsm.attribution._check import check_batch_size, check_encoder, home, open_result, read_concepts, read_inputs
from stcsm.attribution._encoder import Encoder
from stcsm.attribution._evaluating import evaluating, sealed_generators
from stcsm.attribution._method import Batch, Method
from stcsm.attribution._table import make_method, method_class

__all__ = ["attribute", "mean_attribution"]

CHUNK_VALUES = 2**25
"""Attributions that a mean holds at once."""


def attribute(
    encoder: nn.Module,
    inputs: Any,
    concepts: Any,
    method: str = "integrated_gradients",
    *,
    batch_size: int = 256,
    progress: bool = False,
    out: Any = None,
    **params: Any,
) -> Any:
    """Attribute concept scores to the features of the inputs.

    The score of a concept is the product of an encoder's latents with the concept vector, z · v; a map says how much
    each feature of a sample contributes to it, in the sense of the method (Brocki and Chung 2019, arXiv 1910.13140).

    Parameters
    ----------
    encoder
        Any module that maps (N, ...) to latents (N, L) through autograd. It runs in evaluation mode, whatever mode it
        is in; its modes, hooks, parameters and gradients stay as they are.
    inputs
        Samples, (N, ...), floating point, a tensor or a numpy array.
    concepts
        Concept vectors, (L,) or (K, L).
    method
        One of :data:`METHODS`.
    batch_size
        Most samples in one pass of the encoder. It bounds the memory; the result does not depend on it beyond
        rounding.
    progress
        Whether to show a progress bar over batches.
    out
        Array, memory map or tensor to write the result into, of its shape and of the inputs' precision. If a batch
        fails, the batches before it stay written.
    **params
        The method's parameters. All methods know ``published=True``: the published code's numbers, its oddities
        included.

    Returns
    -------
    torch.Tensor or numpy.ndarray
        ``out`` if given, else as the inputs are (tensor or array, precision, device): (N, ...) for one concept (L,),
        (N, K, ...) for (K, L).

    Raises
    ------
    TypeError
        An argument is of the wrong kind (no module, integer inputs, an encoder that does not return one tensor), or a
        parameter is none of the method's.
    ValueError
        Shapes do not match, values are not finite, a concept is zero, the encoder is compiled, scripted, random or
        cut off from autograd, a method with a rule meets no activation or one without a rule.

    Examples
    --------
    >>> import torch
    >>> encoder = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softplus(), torch.nn.Linear(3, 2))
    >>> attribute(encoder, torch.ones(5, 4), torch.eye(2), "saliency").shape
    torch.Size([5, 2, 4])
    """
    chosen = make_method(method, params)
    rows_per_pass = check_batch_size(batch_size)
    check_encoder(encoder)
    with torch.inference_mode(False):
        x = read_inputs(inputs, encoder)
        vectors, single = read_concepts(concepts, x)
        chosen = chosen.prepared(x)
        shape = (len(x), *x.shape[1:]) if single else (len(x), len(vectors), *x.shape[1:])
        given = open_result(out, shape, x)
        device = home(encoder, x)
        with evaluating(encoder, device), sealed_generators(device) as seal:
            result = given.unsqueeze(1) if single else given
            _run(encoder, x, vectors.to(device), chosen, rows_per_pass, result, progress, seal)
    if out is not None:
        return out
    return given if isinstance(inputs, Tensor) else given.numpy()


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
        As for :func:`attribute`.
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
    rows_per_pass = check_batch_size(batch_size)
    cls = method_class(method)
    vectors, single = read_concepts(concepts, torch.empty(0, dtype=torch.float64))
    vectors = vectors.cpu()
    through_latents = cls.linear and len(vectors) > vectors.shape[1]
    directions = torch.eye(vectors.shape[1], dtype=torch.float64) if through_latents else vectors
    first, seen = params.pop("first", 0) if cls.stochastic else 0, 0
    total: Any = 0.0
    with tqdm(desc=method, unit="batch", disable=not progress, leave=False) as shown:
        for rows in _chunks(batches, len(directions), rows_per_pass):
            own = {"first": first + seen, **params} if cls.stochastic else params
            maps = attribute(encoder, rows, directions, method, batch_size=len(rows), **own)
            total = total + torch.as_tensor(maps).cpu().double().sum(dim=0)
            seen += len(rows)
            shown.update()
    if not seen:
        raise ValueError("Expected at least one sample to average over, found none.")
    mean = total / seen
    if through_latents:
        mean = (vectors @ mean.flatten(1)).unflatten(1, mean.shape[1:])
    return (mean[0] if single else mean).numpy()


def _chunks(batches: Any, concepts: int, most: int) -> Iterator[Any]:
    """Samples a few at a time, so that their attributions stay below :data:`CHUNK_VALUES`."""
    given: Iterable[Any] = [batches] if isinstance(batches, (Tensor, np.ndarray)) else batches
    for batch in given:
        step = int(np.clip(CHUNK_VALUES // max(1, concepts * math.prod(batch.shape[1:])), 1, most))
        yield from (batch[start : start + step] for start in range(0, len(batch), step))


def _run(
    module: nn.Module,
    x: Tensor,
    vectors: Tensor,
    method: Method,
    batch_size: int,
    result: Tensor,
    progress: bool,
    seal: sealed_generators,
) -> None:
    """Fill ``result``, (N, K, ...), batch by batch."""
    starts = range(0, len(x), batch_size)
    variants = method.variants(tuple(x.shape[1:]))
    with tqdm(total=len(starts) * variants, desc=type(method).__name__, unit="pass", disable=not progress) as shown:
        encoder = Encoder(
            module,
            vectors.shape[1],
            vectors.device,
            batch_size,
            published=method.published,
            seal=seal,
            several_batches=len(starts) > 1,
            advance=shown.update,
        )
        for number, start in enumerate(starts, 1):
            stop = min(start + batch_size, len(x))
            batch = Batch(x[start:stop].to(vectors.device).contiguous(), start, stop)
            if method.linear:
                _through_latents(method, encoder, batch, vectors, result[start:stop])
            else:
                method.fill(encoder, batch, vectors, result[start:stop])
            shown.update(number * variants - shown.n)


def _through_latents(method: Method, encoder: Encoder, batch: Batch, vectors: Tensor, into: Tensor) -> None:
    """Attribute the latents once and multiply by the concepts, or the concepts themselves where they are fewer."""
    concepts, latents = vectors.shape
    few = concepts <= latents
    directions = vectors if few else torch.eye(latents, dtype=vectors.dtype, device=vectors.device)
    maps = torch.zeros(len(batch.x), len(directions), *batch.x.shape[1:], dtype=batch.x.dtype, device=batch.x.device)
    method.fill(encoder, batch, directions, maps)
    if few:
        into.copy_(maps)
        return
    flat = maps.flatten(2)
    for first in range(0, concepts, latents):  # the product of some concepts at a time takes no more than the maps
        some = vectors[first : first + latents]
        into[:, first : first + latents].copy_((some @ flat).unflatten(2, batch.x.shape[1:]))
