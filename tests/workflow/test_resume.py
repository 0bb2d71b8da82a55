"""A run that was interrupted goes on; a trained model is not trained again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
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
    assert "other counts or settings" in command(out, *LABELS, "--resume", "--n-seeds", "1")


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
