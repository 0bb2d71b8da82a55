"""An encoder, its inputs and concepts, read and checked once for every measure."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stcsm.attribution._check import check_batch_size, check_encoder, home, read_concepts, read_inputs
from stcsm.attribution._evaluating import evaluating
from stcsm.attribution._method import sample_like

FloatArray = NDArray[np.float64]


class Runner:
    """Scores of concepts, in batches, without autograd, the encoder's modes as before.

    Parameters
    ----------
    encoder, inputs, concepts
        As for :func:`stcsm.attribution.attribute`.
    batch_size
        Most samples in one pass of the encoder.

    Attributes
    ----------
    x
        Inputs (N, ...).
    vectors
        Concepts (K, L).
    single
        Whether one vector (L,) was given.
    """

    def __init__(self, encoder: nn.Module, inputs: Any, concepts: Any, batch_size: int = 256) -> None:
        self.batch_size = check_batch_size(batch_size)
        check_encoder(encoder)
        self.encoder = encoder
        self.x = read_inputs(inputs, encoder)
        self.vectors, self.single = read_concepts(concepts, self.x)
        self.device = home(encoder, self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return tuple(self.x.shape[1:])

    def scores(self, rows: Tensor) -> FloatArray:
        """Concept scores (n, K) of rows (n, ...)."""
        parts = []
        with evaluating(self.encoder, self.device), torch.no_grad():
            for start in range(0, len(rows), self.batch_size):
                z = self.encoder(rows[start : start + self.batch_size].to(self.device))
                if not isinstance(z, Tensor) or z.ndim != 2 or z.shape[1] != self.vectors.shape[1]:
                    found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
                    raise ValueError(
                        f"Expected an encoder whose latents have the concepts' {self.vectors.shape[1]} components, "
                        f"found {found}."
                    )
                parts.append(z.double().cpu() @ self.vectors.double().cpu().T)
        return torch.cat(parts).numpy()

    def baseline(self, value: Any) -> Tensor:
        """A number, a sample or one for each input, as (N, ...)."""
        return sample_like(value, self.x, "baseline").to(self.x).expand_as(self.x)

    def read_maps(self, maps: Any) -> FloatArray:
        """Attributions (N, ...) or (N, K, ...) as (N, K, F).

        Raises
        ------
        ValueError
            If their shape does not fit inputs and concepts, or they are not finite.
        """
        values = np.asarray(maps.detach().cpu() if isinstance(maps, Tensor) else maps, dtype=np.float64)
        wanted = (len(self.x), *self.shape) if self.single else (len(self.x), len(self.vectors), *self.shape)
        if values.shape != wanted:
            raise ValueError(
                f"Expected attributions of shape {wanted}, as stcsm.attribution.attribute returns them for these "
                f"inputs and concepts, found {values.shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "Expected finite attributions, found NaN or infinity; occlusion leaves cells that no window covers "
                "NaN: choose window and step so that all are covered."
            )
        return values.reshape(len(self.x), len(self.vectors), -1)

    def shaped(self, values: FloatArray) -> FloatArray:
        """Take the concepts' axis, the second, away where one vector was given."""
        return values[:, 0] if self.single else values
