"""Every case in STCSM_GOLDEN_DIR, built from its .json alone: users add cases by adding files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stcsm.attribution import METHODS, attribute, percentile_threshold

from .golden import OURS, Case, case_files

FOLDER = Path(os.environ.get("STCSM_GOLDEN_DIR", Path(__file__).resolve().parents[3] / "shared" / "golden"))
FILES = case_files(FOLDER)
KEYS = [(path, key) for path in FILES for key in Case.read(path).facts["attr"]]
needs_cases = pytest.mark.skipif(not FILES, reason=f"{FOLDER} holds no cases; set STCSM_GOLDEN_DIR")


def tolerance(method: str) -> float:
    return 1e-3 if method == "epsilon_lrp" else 1e-4


@needs_cases
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_latents(path):
    case = Case.read(path)
    with torch.no_grad():
        latent = case.encoder().eval()(case.x)
    torch.testing.assert_close(latent, case.arrays["latent"], rtol=1e-4, atol=1e-5)


@needs_cases
@pytest.mark.parametrize(("path", "key"), KEYS, ids=[f"{p.stem}-{k}" for p, k in KEYS])
@pytest.mark.filterwarnings("ignore:The .*percentile lets nothing pass")
def test_attribution(path, key):
    case = Case.read(path)
    method, params = case.call(key)
    found = attribute(case.encoder(), case.x, case.arrays["concept"], method, published=True, **params).numpy()
    expected = case.channels_first(case.arrays[key]).numpy()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    largest = np.nanmax(np.abs(expected))
    if largest == 0:
        np.testing.assert_array_equal(found, 0)
    assert np.nanmax(np.abs(found - expected)) <= tolerance(method) * largest


@needs_cases
def test_the_public_cases_cover_every_method():
    covered = {OURS[case["method"]] for path in FILES for case in Case.read(path).facts["attr"].values()}
    assert covered == set(METHODS)


def test_percentile(golden_dir):
    with np.load(golden_dir / "percentile_nearest.npz", allow_pickle=False) as held:
        sizes = [int(key.removeprefix("x_d")) for key in held.files if key.startswith("x_d")]
        assert sizes
        for d in sizes:
            x = torch.from_numpy(held[f"x_d{d}"])
            for j, q in enumerate(held["q"].tolist()):
                threshold = percentile_threshold(x, q)
                np.testing.assert_array_equal(threshold.numpy(), held[f"thresh_d{d}"][:, j])
                np.testing.assert_array_equal((x > threshold[:, None]).sum(1).numpy(), held[f"kept_d{d}"][:, j])
