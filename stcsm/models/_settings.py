"""Settings of a gene model, checked before any work."""

from __future__ import annotations

from typing import Any

import numpy as np

from stcsm.models._module import LIKELIHOODS

ENCODERS = ("auto", "mlp", "conv")


def choose_encoder(encoder: str) -> str:
    """What ``encoder="auto"`` means: fully connected, for any tissue.

    A fully connected encoder takes any coordinates and any spots, needs no grid, and has no cells without tissue to
    learn about. Convolutions are there for those who want them: they share weights over the tissue, so they have
    fewer parameters on large grids, and they are the published model's. The recovery benchmark decides: this changes
    only if they find layers better there.
    """
    return "mlp" if encoder == "auto" else encoder


def check_settings(s: dict[str, Any]) -> None:
    """Refuse settings out of range; whole numbers become plain ``int`` (they are written as JSON).

    Raises
    ------
    ValueError
        Naming the setting.
    """
    if s["encoder"] not in ENCODERS:
        raise ValueError(f"Expected encoder to be one of {ENCODERS}, found {s['encoder']!r}")
    if s["likelihood"] not in LIKELIHOODS:
        raise ValueError(f"Expected likelihood to be one of {LIKELIHOODS}, found {s['likelihood']!r}")
    for name in ("n_latent", "n_seeds", "min_counts", "n_hidden"):
        if not isinstance(s[name], (int, np.integer)) or s[name] < 1:
            raise ValueError(f"Expected {name} to be a whole number of 1 or more, found {s[name]!r}")
        s[name] = int(s[name])
    seed = s["seed"]
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"Expected seed to be a whole number of 0 or more, found {seed!r}")
    smoothing, s["seed"] = s["smoothing"], int(seed)
    if isinstance(smoothing, str) and smoothing == "auto":
        return
    if isinstance(smoothing, bool) or not isinstance(smoothing, (int, float, np.integer, np.floating)):
        raise ValueError(f"Expected smoothing to be 'auto' or a number of 0 or more, found {smoothing!r}")
    if not np.isfinite(smoothing) or smoothing < 0:
        raise ValueError(f"Expected smoothing of 0 or more, found {smoothing!r}")
    s["smoothing"] = float(smoothing)
