"""A run that was interrupted goes on; a trained model is not trained again."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from safetensors.torch import load_file

import stcsm
from stcsm.cli import main
from stcsm.models import GeneVAE
from stcsm.workflow import _run
from stcsm.workflow._results import UNFINISHED

WEIGHTS = "model/model.safetensors"


def weights(out):
    return {name: t.numpy().tobytes() for name, t in load_file(out / WEIGHTS).items()}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory):
    path = tmp_path_factory.mktemp("tissue") / "tissue.h5ad"
    stcsm.datasets.simulated_bulb(n_spots=80, n_genes=300, seed=1).write_h5ad(path)
    return path


@pytest.fixture
def command(tissue, monkeypatch, capsys):
    """``stcsm run`` on the tissue, in this process: what it said."""

    def run(out, *args):
        monkeypatch.setattr(sys, "argv", ["stcsm", "run", str(tissue), "--out", str(out), *args])
        try:
            main()
        except SystemExit as stop:
            if stop.code == 2:
                return " ".join(capsys.readouterr().err.split())
            raise
        return " ".join(capsys.readouterr().out.split())

    train = GeneVAE.train
    monkeypatch.setattr(GeneVAE, "train", lambda model, **kwargs: train(model, max_epochs=3, **kwargs))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return run


LABELS = ("--labels-key", "layer", "--null", "0")


def stop_in(epoch):
    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt

    return on_train_batch_end


def test_a_run_that_was_interrupted_goes_on_and_a_trained_model_is_taken(
    tissue, command, tmp_path, monkeypatch, capsys
):
    assert "nothing to resume" in command(tmp_path / "whole", *LABELS, "--resume")
    assert not (tmp_path / "whole" / UNFINISHED).exists()

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(_run.TrainingProgress, "on_train_batch_end", stop_in(1))
        with pytest.raises(SystemExit) as stop:
            command(out, *LABELS)
    assert stop.value.code == 130
    assert "--resume goes on with the training" in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in out.iterdir()] == [UNFINISHED]

    said = command(out, *LABELS, "--seed", "1", "--resume")
    assert "settings of the model" in said
    assert "leave it out to begin anew" in said
    assert [p.name for p in out.iterdir()] == [UNFINISHED]

    # A failure behind the training keeps what was trained.
    with monkeypatch.context() as patched:
        patched.setattr(_run.tl, "decoded", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            command(out, *LABELS, "--resume")
    with monkeypatch.context() as patched:
        patched.setattr(stcsm.models._model, "fit", None)
        assert "goes on with the training" in command(out, *LABELS, "--resume")
    assert weights(out) == weights(tmp_path / "whole")
    assert (out / "concept_map.csv").read_bytes() == (tmp_path / "whole" / "concept_map.csv").read_bytes()
    assert not (out / UNFINISHED).exists()

    with monkeypatch.context() as patched:
        patched.setattr(GeneVAE, "train", None)
        name = stcsm.io.read(tissue).var_names[0]
        assert "takes the trained model" in command(out, "--genes", f"one={name}", "--null", "0", "--resume")
    assert weights(out) == weights(tmp_path / "whole")
    assert "of other settings of the model" in command(out, *LABELS, "--resume", "--n-seeds", "1")


def other_genes(adata):
    adata.var_names = [f"other {name}" for name in adata.var_names]
    return adata


def mirrored(adata):
    """The same counts at other coordinates."""
    adata.obsm["spatial"] = adata.obsm["spatial"][::-1].copy()
    return adata


def permuted(adata):
    """The counts of the genes exchanged among their names: spots have the same depths."""
    names = list(adata.var_names)
    adata = adata[:, ::-1].copy()
    adata.var_names = names
    return adata


@pytest.mark.parametrize(
    ("change", "named"),
    [(lambda a: a[:-5].copy(), "spots"), (mirrored, "spots"), (permuted, "counts"), (other_genes, "genes")],
    ids=["other spots", "other coordinates", "genes exchanged", "other genes"],
)
def test_a_trained_model_of_other_data_is_not_taken(change, named, trained):
    adata, out = trained
    said = io.StringIO()
    other = change(adata.copy())
    GeneVAE.setup_anndata(other)
    model, is_trained = _run._begin(other, GeneVAE(other, n_seeds=1), out, True, Console(file=said, width=1000))
    assert not is_trained
    assert not model.is_trained
    assert re.search(f"of other .*{named}.*: nothing is resumed", said.getvalue())


def test_a_trained_model_of_the_same_data_is_taken(trained):
    adata, out = trained
    again = adata.copy()
    GeneVAE.setup_anndata(again)
    assert _run._begin(again, GeneVAE(again, n_seeds=1), out, True, Console(quiet=True))[1]


@pytest.fixture(scope="module")
def trained(tissue, tmp_path_factory):
    """The tissue, and a folder with a model that was trained on it."""
    adata, out = stcsm.io.read(tissue), tmp_path_factory.mktemp("trained")
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_seeds=1)
    model.train(max_epochs=1, progress=False)
    model.save(out / "model")
    return adata, out


def test_an_interrupted_training_is_not_forgotten_without_a_word(trained, tmp_path, capsys):
    adata, _ = trained
    (tmp_path / UNFINISHED).touch()
    _run._begin(adata, None, tmp_path, False, Console(quiet=True))
    assert "is begun anew; --resume goes on with one" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / UNFINISHED).exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tissue, tmp_path, seed):
    """Killed three times in the course of its training, without any chance to tidy up."""
    often = "import stcsm.models._checkpoint as c; c.SAVE_SECONDS = 0; from stcsm.cli import main; main()"
    args = [sys.executable, "-c", often, "run", str(tissue), *LABELS, "--quiet", "--out"]
    started = time.perf_counter()
    subprocess.run([*args, tmp_path / "whole"], check=True)
    whole = time.perf_counter() - started
    out, at = tmp_path / "out", random.Random(seed)
    for _ in range(3):
        process = subprocess.Popen([*args, out, "--resume"])
        waits_until = time.perf_counter() + whole
        while not (out / UNFINISHED).exists() and time.perf_counter() < waits_until:
            time.sleep(0.01)
        time.sleep(at.uniform(0, whole / 8))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*args, out, "--resume"], check=True)
    assert weights(out) == weights(tmp_path / "whole")
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
