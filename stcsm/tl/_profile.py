"""Layers as ideal genes: the encoded profile of a gene that is expressed in one layer only."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from stcsm.concepts import GroupProfiles, group_profiles
from stcsm.models import GeneVAE

COUNTS_A_SPOT = 20
"""Counts of the ideal gene at a mean spot: many against the model's pseudo-count of 1/2."""


def encoded_profiles(model: GeneVAE, labels: pd.Series) -> tuple[GroupProfiles, np.ndarray]:
    """Latents of ideal genes minus that of a gene expressed everywhere alike.

    Parameters
    ----------
    model
        Trained; its encoder takes depth-corrected counts over the spots.
    labels
        Label of every spot of the AnnData (text), NaN where there is none.

    Returns
    -------
    The K profiles, and concept vectors (K, M, L) for M members of the ensemble.

    Raises
    ------
    ValueError
        If labels are at fault (see :func:`stcsm.concepts.group_profiles`), or the model's input is another.
    """
    if model.sections is not None:
        raise ValueError(
            "Expected a model of one section, on the spots that it was trained on, for estimator='profile', found one "
            f"on the places of {len(model.section_names)} section(s); use estimator='contrast', which takes the "
            "layer's marker genes"
        )
    profiles = group_profiles(
        labels.to_numpy(dtype=object)[model.spots],
        model.reader.depth,
        total=float(COUNTS_A_SPOT * len(model.spots)),
    )
    some = model.trained_genes[:1]
    theirs, ours = model.inputs(some), _inputs(model, model.reader.profiles(some))
    if theirs.shape != ours.shape or not torch.allclose(theirs, ours, atol=1e-5):
        raise ValueError(
            "Expected a model over spots with depth-corrected counts as input for estimator='profile', found another "
            "(a grid, or max-scaled counts); use estimator='contrast', which takes the layer's marker genes"
        )
    inputs = _inputs(model, np.concatenate([profiles.background[None], profiles.counts]))
    vectors = []
    with torch.inference_mode():
        for encoder in model.encoders:
            z = encoder(inputs.to(model.device)).cpu().numpy().astype(np.float64)
            vectors.append(z[1:] - z[0])
    return profiles, np.stack(vectors, axis=1)


def _inputs(model: GeneVAE, counts: np.ndarray) -> torch.Tensor:
    """The model's input u for profiles (n, S') that are no genes of the data."""
    expected = counts.sum(axis=1, keepdims=True) * model.reader.depth
    return torch.from_numpy(np.log1p(counts / (expected + 0.5)).astype(np.float32))
