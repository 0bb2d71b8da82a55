"""The entry: attributions of concepts to an encoder's inputs, sample by sample; the table of methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from stcsm._text import did_you_mean
from stcsm.attribution._arguments import Arguments, open_result
from stcsm.attribution._evaluating import evaluation_mode, sealed_generators
from stcsm.attribution._forward import Encoder
from stcsm.attribution._methods import (
    Batch,
    InputXGradient,
    IntegratedGradients,
    Method,
    Occlusion,
    Saliency,
    SmoothGrad,
)
from stcsm.attribution._rectgrad import RectGrad, RectGradConstant, RectGradModified, RectGradRedistributing
from stcsm.attribution._rules import Deconvolution, DeepLift, EpsilonLRP, GuidedBackprop, RuleMethod

__all__ = [
    "METHODS",
    "TABLE",
    "attribute",
    "directions_of",
    "make_method",
    "maps_of_concepts",
    "method_class",
    "methods_table",
]

#: Every method by its name, in order. A new method is a class and a line here.
TABLE: dict[str, type[Method]] = {
    "saliency": Saliency,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "smoothgrad": SmoothGrad,
    "deconvolution": Deconvolution,
    "guided_backprop": GuidedBackprop,
    "rectgrad": RectGrad,
    "rectgrad_const": RectGradConstant,
    "rectgrad_mod": RectGradModified,
    "rectgrad_prr": RectGradRedistributing,
    "epsilon_lrp": EpsilonLRP,
    "deeplift": DeepLift,
    "occlusion": Occlusion,
}

#: Names of all methods, in order.
METHODS: tuple[str, ...] = tuple(TABLE)


def method_class(name: Any) -> type[Method]:
    """Class of a method: its traits (``linear``, ``times_input``, ``stochastic``) and its parameters.

    Raises
    ------
    ValueError
        There is no method of that name.
    """
    if not isinstance(name, str) or name not in TABLE:
        raise ValueError(
            f"Expected method to be one of {', '.join(TABLE)}, found {name!r}{did_you_mean(name, TABLE) or '.'}"
        )
    return TABLE[name]


def make_method(name: Any, params: dict[str, Any]) -> Method:
    """Build a method from its name and parameters, to use or to check them.

    Raises
    ------
    ValueError
        There is no method of that name, or a parameter is out of range.
    TypeError
        The method has no such parameter, or it is of the wrong kind.
    """
    cls = method_class(name)
    unknown = [key for key in params if key not in cls.parameters()]
    if unknown:
        raise TypeError(
            f"Expected parameters of {name} ({', '.join(cls.parameters())}), found {', '.join(map(repr, unknown))}."
        )
    return cls(**params)


def methods_table() -> str:
    """Table of all methods in Markdown: what each is, and its traits."""
    lines = [
        "| method | in one line | backward rule | linear in the concept | multiplied by the input | parameters |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, cls in TABLE.items():
        first = (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")
        traits = [issubclass(cls, RuleMethod), cls.linear, cls.times_input]
        parameters = ", ".join(f"`{key}`" for key in cls.parameters())
        cells = [f"`{name}`", first, *("yes" if trait else "no" for trait in traits), parameters]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
        included. Methods with a backward rule know ``allow``: names of calls that pass their plain gradient.

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
        cut off from autograd, a method with a rule meets no activation, or a call that may be an activation but has
        no rule.

    Examples
    --------
    >>> import torch
    >>> encoder = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softplus(), torch.nn.Linear(3, 2))
    >>> attribute(encoder, torch.ones(5, 4), torch.eye(2), "saliency").shape
    torch.Size([5, 2, 4])
    """
    chosen = make_method(method, params)
    with torch.inference_mode(False):
        given = Arguments.read(encoder, inputs, concepts, batch_size)
        chosen = chosen.prepared(given.x)
        features = given.x.shape[1:]
        shape = (len(given.x), *features) if given.single else (len(given.x), len(given.vectors), *features)
        result = open_result(out, shape, given.x)
        with evaluation_mode(encoder, given.device), sealed_generators(given.device) as seal:
            _run(encoder, given, chosen, result.unsqueeze(1) if given.single else result, seal, progress)
    if out is not None:
        return out
    return result if isinstance(inputs, Tensor) else result.numpy()


def _run(
    module: nn.Module, given: Arguments, method: Method, result: Tensor, seal: sealed_generators, progress: bool
) -> None:
    """Fill ``result``, (N, K, ...), batch by batch."""
    vectors = given.vectors.to(given.device)
    directions = directions_of(method, vectors)
    starts = range(0, len(given.x), given.batch_size)
    variants = method.variants(tuple(given.x.shape[1:]))
    with tqdm(total=len(starts) * variants, desc=type(method).__name__, unit="pass", disable=not progress) as shown:
        encoder = Encoder(
            module,
            vectors.shape[1],
            given.batch_size,
            seal,
            several_batches=len(starts) > 1,
            advance=shown.update,
        )
        for number, start in enumerate(starts, 1):
            stop = min(start + given.batch_size, len(given.x))
            batch = Batch(given.x[start:stop].to(given.device).contiguous(), start, stop)
            if method.linear:
                maps = batch.x.new_zeros(stop - start, len(directions), *batch.x.shape[1:])
                method.fill(encoder, batch, directions, maps)
                # The product of some concepts at a time takes no more memory than the maps.
                for some in range(0, len(vectors), len(directions)):
                    part = slice(some, some + len(directions))
                    of_some = maps if directions is vectors else maps_of_concepts(vectors[part], maps)
                    result[start:stop, part].copy_(of_some)
            else:
                method.fill(encoder, batch, directions, result[start:stop])
            shown.update(number * variants - shown.n)


def directions_of(method: Method | type[Method], vectors: Tensor) -> Tensor:
    """What to attribute: the concepts, or the latents where these are fewer and the method is linear."""
    latents = vectors.shape[1]
    if method.linear and len(vectors) > latents:
        return torch.eye(latents, dtype=vectors.dtype, device=vectors.device)
    return vectors


def maps_of_concepts(vectors: Tensor, latent_maps: Tensor) -> Tensor:
    """Maps of concepts, (n, K, ...), from those of the latents, (n, L, ...)."""
    return (vectors @ latent_maps.flatten(2)).unflatten(2, latent_maps.shape[2:])
