"""Whether a saved model is what a training would give, so that it need not be trained again."""

from __future__ import annotations

from pathlib import Path

from stcsm._files import read_model
from stcsm.models._checkpoint import SETTINGS, training_of
from stcsm.models._model import GeneVAE


def differs_from_saved(model: GeneVAE, folder: str | Path) -> list[str]:
    """What a training of ``model`` would not have in common with that of a saved one, its own settings left out.

    Returns
    -------
    Names; empty where training ``model`` would give the weights that are saved.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder holds no model, or a damaged one.
    """
    saved = read_model(folder)[1].get("training") or {}
    now = training_of(model._tissue, model.settings, model.trained_samples, model.fingerprint())
    return [name for name, value in now.items() if name != SETTINGS and saved.get(name) != value]
