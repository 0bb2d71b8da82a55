"""A run on counts that stay in their file: the results of counts in memory, and the counts in them."""

from __future__ import annotations

import json

import anndata as ad
import h5py
import numpy as np
import pytest

import stcsm
from stcsm.io import _read
from stcsm.models import GeneVAE
from stcsm.workflow import _run, write_report
from stcsm.workflow._progress import RunProgress


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    path = tmp_path_factory.mktemp("section") / "section.h5ad"
    tissue = stcsm.datasets.simulated_bulb(n_spots=60, n_genes=300, seed=1)
    tissue.raw = tissue
    tissue.layers["twice"] = 2 * tissue.X
    tissue.write_h5ad(path)
    return path


def run(adata, out):
    with RunProgress(quiet=True) as progress:
        _run.analyse(
            adata, out, [{"groupby": "layer", "groups": ["Granular Cell Layer"]}], setup={}, quiet=True,
            method="saliency", encoder="auto", seed=0, n_seeds=1, null=0, progress=progress,
        )  # fmt: skip


def test_counts_that_take_more_than_their_share_of_memory_stay_in_the_file(section, monkeypatch):
    with h5py.File(section) as file:
        needed = sum(file["X"][name].nbytes for name in ("data", "indices", "indptr"))
    monkeypatch.setattr(_read, "available_memory", lambda: needed / _read.SHARE)
    assert not stcsm.io.read(section).isbacked
    monkeypatch.setattr(_read, "available_memory", lambda: (needed - 1) / _read.SHARE)
    assert stcsm.io.read(section).isbacked
    assert not stcsm.io.read(section, backed=False).isbacked
    assert not stcsm.io.read([section, section]).isbacked


def test_a_run_on_a_file_gives_the_results_of_one_in_memory(section, tmp_path, monkeypatch):
    train, before = GeneVAE.train, section.read_bytes()
    monkeypatch.setattr(GeneVAE, "train", lambda model, **kwargs: train(model, max_epochs=1, **kwargs))
    for backed in (False, True):
        adata = stcsm.io.read(section, backed=backed)
        assert adata.isbacked == backed
        run(adata, tmp_path / str(backed))
        assert adata.isbacked == backed
        np.testing.assert_array_equal(adata.X[:].sum(), ad.read_h5ad(section).X.sum())  # it still reads its own file
    for name in ("concept_map.csv", "concept_saliency.csv", "concept_scores.csv"):
        assert (tmp_path / "True" / name).read_bytes() == (tmp_path / "False" / name).read_bytes()
    for backed, counts in ((True, "file"), (False, "memory")):
        record = json.loads((tmp_path / str(backed) / "run.json").read_text())
        assert (record["counts"], record["nearest_spots"]) == (counts, "exact")
    found, expected = (ad.read_h5ad(tmp_path / folder / "result.h5ad") for folder in ("True", "False"))
    for held in (lambda a: a.X, lambda a: a.raw.X, lambda a: a.layers["twice"], lambda a: a.obsp["stcsm_spot_graph"]):
        np.testing.assert_array_equal(held(found).toarray(), held(expected).toarray())
    assert section.read_bytes() == before
    write_report(tmp_path / "True" / "result.h5ad", tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size > 10_000
