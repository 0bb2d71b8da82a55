"""What a run computes, and how often."""

from __future__ import annotations

import functools
import sys
from collections import Counter

import pandas as pd
import pytest

import stcsm
from stcsm.models import GeneVAE
from stcsm.workflow import run_counts

MEMBERS = 2


@pytest.fixture
def done(monkeypatch):
    """Calls of the functions that are expensive on a large tissue."""
    calls: Counter[str] = Counter()

    def everywhere(package, name, note):
        """Wrap a function in every module of a package that holds it."""
        for module in [m for key, m in sys.modules.items() if key.startswith(package)]:
            function = vars(module).get(name)
            if function is not None:
                monkeypatch.setattr(module, name, note(function))

    def counted(what):
        def wrap(function):
            @functools.wraps(function)
            def wrapped(*args, **kwargs):
                calls[what] += 1
                return function(*args, **kwargs)

            return wrapped

        return wrap

    def samples(function):
        @functools.wraps(function)
        def wrapped(encoder, batches, *args, **kwargs):
            batches = list(batches)
            calls[f"attributions of {sum(map(len, batches))} genes"] += 1
            return function(encoder, batches, *args, **kwargs)

        return wrapped

    everywhere("stcsm.space", "check_every_value", counted("validations"))
    everywhere("stcsm.models", "hash_weights", counted("hashes"))
    everywhere("stcsm.tl._maps", "mean_attribution", samples)
    encode = GeneVAE.get_latent_representation
    monkeypatch.setattr(GeneVAE, "get_latent_representation", counted("encodings")(encode))
    return calls


def test_counts_are_validated_genes_encoded_weights_hashed_and_genes_attributed_once(done, monkeypatch, tmp_path):
    """Weights are hashed once in one state: before the training, whose state on disk is known by them, and behind it.

    More genes are trained on than the check of sanity averages over, so its 200 genes are attributed beside them.
    """
    train = GeneVAE.train  # how long a training lasts changes nothing here
    monkeypatch.setattr(GeneVAE, "train", lambda self, **how: train(self, max_epochs=2, **how))
    tissue = stcsm.datasets.simulated_bulb(n_spots=100, n_genes=320, seed=1)
    tissue.write_h5ad(tmp_path / "tissue.h5ad")
    names = list(tissue.var_names)
    (tmp_path / "sets.gmt").write_text(f"set\tx\t{names[3]}\t{names[4]}\n")
    run_counts(
        tmp_path / "tissue.h5ad", tmp_path / "out", genes=[f"one={names[0]}"], gmt=tmp_path / "sets.gmt", match=None,
        ignore_case=False, labels=None, labels_key="layer", layer=None, quiet=True, method="saliency", encoder="auto",
        seed=0, n_seeds=MEMBERS, null=20,
    )  # fmt: skip
    found = dict(done)
    trained = len(GeneVAE.load(tmp_path / "out" / "model", tissue).trained_genes)
    assert trained > 200
    assert found == {
        "validations": 1,
        "hashes": 2,
        "encodings": MEMBERS,
        f"attributions of {trained} genes": MEMBERS,
        "attributions of 200 genes": MEMBERS,
    }
    table = pd.read_csv(tmp_path / "out" / "concept_significance.csv", index_col="concept")
    assert list(table.index[:2]) == ["one", "set"]
    assert list(table["source"]) == ["genes", "genes"] + ["label"] * (len(table) - 2)
