"""Encoder and concepts as one module, for other people's attribution tools."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stcsm.attribution._arguments import read_concepts, read_real
from stcsm.attribution._checks import read_latents

__all__ = ["ConceptScore"]


class ConceptScore(nn.Module):
    """Scores of concepts, so that a tool can point at a concept as it would at a class logit.

    Parameters
    ----------
    encoder
        Module that maps (N, ...) to latents (N, L). It is used as it is, not copied. A scripted or compiled one runs
        too, but tools that hook modules see none inside it.
    concepts
        Concept vectors, (L,) or (K, L); copied.

    Attributes
    ----------
    encoder
        The encoder.
    head
        A linear layer without bias whose rows are the concepts; it is not trained.

    Raises
    ------
    TypeError
        ``encoder`` is no module.
    ValueError
        The concepts are not (L,) or (K, L), not finite, or zero.
    """

    def __init__(self, encoder: nn.Module, concepts: Any) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise TypeError(f"Expected encoder to be a torch.nn.Module, found {type(encoder).__name__}.")
        # Where the encoder has no parameters the concepts' own precision counts.
        like = torch.empty(0, dtype=read_real(concepts, "concepts").dtype, device="cpu")
        parameter: Tensor = next((p for p in encoder.parameters() if p.is_floating_point()), like)
        vectors, _ = read_concepts(concepts, parameter)
        self.encoder = encoder
        # A layer, and not a product in forward: tools with rules for layers (zennit) have one for this step too.
        self.head = nn.Linear(
            vectors.shape[1], len(vectors), bias=False, device=parameter.device, dtype=parameter.dtype
        )
        self.head.weight = nn.Parameter(vectors.to(parameter.device).clone(), requires_grad=False)
        self.head.train(encoder.training)
        self.training = encoder.training

    @property
    def concepts(self) -> Tensor:
        """Concept vectors, (K, L)."""
        return self.head.weight

    def forward(self, inputs: Tensor) -> Tensor:
        """Concept scores.

        Parameters
        ----------
        inputs
            (N, ...).

        Returns
        -------
        torch.Tensor
            (N, K); K is 1 for a single vector.

        Raises
        ------
        TypeError
            The encoder does not return one tensor of real numbers.
        ValueError
            Its latents are not (N, L).
        """
        latents = read_latents(self.encoder(inputs), len(inputs), self.head.in_features, self.head.weight.dtype)
        return self.head(latents)
