"""The one bar of a run, its lines where nobody watches, and the plan before it."""

from __future__ import annotations

import io
import json
import re
import time

import numpy as np
import pytest
from rich.console import Console

import stcsm
from benchmarks import scale
from stcsm.models import GeneVAE, _model, training_cost
from stcsm.models._module import GeneVAEModule
from stcsm.space import _memory
from stcsm.workflow import _plan, _progress
from stcsm.workflow._progress import RunProgress, duration


def watched(terminal: bool, quiet: bool = False) -> tuple[RunProgress, io.StringIO]:
    shown = io.StringIO()
    return RunProgress(quiet, Console(file=shown, force_terminal=terminal, width=100)), shown


def test_stages_are_measured_and_their_shares_are_those_of_the_plan():
    progress, _ = watched(False, quiet=True)
    with progress:
        with progress.stage("read"):
            time.sleep(0.02)
        progress.plan({"width": 1.0, "train": 6.0, "map": 3.0})
        with progress.stage("width"):
            progress.switch("train")
            progress.advance(0.5)
            assert progress.where()[0] == pytest.approx(0.4)
        with progress.stage("map"):
            assert progress.where()[0] == pytest.approx(0.7, abs=0.05)  # by the clock, where no share is told
    assert progress.where() == (1.0, 0.0)
    assert list(progress.seconds) == ["read", "width", "train", "map"]
    assert progress.seconds["read"] >= 0.02
    assert progress.seconds["width"] < 0.02
    assert progress.record()["stages"]["train"]["planned_seconds"] == 6.0


def test_what_is_left_follows_the_pace():
    progress, _ = watched(False, quiet=True)
    progress.plan({"train": 100.0, "map": 100.0})
    progress._began, progress._stage = time.perf_counter() - 200, "train"  # twice as slow as planned
    progress.advance(1.0)
    assert progress.where()[1] == pytest.approx(100 * (200 + 10) / (100 + 10), rel=0.01)


@pytest.fixture
def fast(monkeypatch):
    """A clock that ticks often, and minutes that are short."""
    monkeypatch.setattr(_progress, "TICK", 0.005)
    monkeypatch.setattr(_progress, "LINE_SECONDS", 0.03)


def test_into_a_file_come_a_few_lines(fast):
    progress, shown = watched(False)
    with progress:
        progress.plan({"train": 1.0})
        with progress.stage("train"):
            for k in range(200):
                progress.advance(k / 200)
                time.sleep(0.003)
    lines = shown.getvalue().splitlines()
    assert 3 <= len(lines) <= 10
    shares = [int(re.fullmatch(r"train: (\d+)% done, .+ left", line)[1]) for line in lines]
    assert min(np.diff(shares)) >= 10 - 1


def test_at_a_terminal_there_is_one_bar_and_quiet_is_quiet(fast):
    progress, shown = watched(True)
    with progress:
        progress.plan({"train": 1.0, "sanity": 1.0})
        for stage in ("train", "sanity"):
            with progress.stage(stage):
                time.sleep(0.3)
    assert "train" in shown.getvalue()
    assert "sanity" in shown.getvalue()
    assert "left" in shown.getvalue()
    for terminal in (True, False):
        progress, shown = watched(terminal, quiet=True)
        with progress:
            progress.plan({"train": 0.1})
            with progress.stage("train"):
                time.sleep(0.1)
        assert shown.getvalue() == ""


def test_durations_in_words():
    assert [duration(s) for s in (3.2, 89, 100, 3600, 5000)] == ["3 s", "89 s", "2 min", "1 h 0 min", "1 h 23 min"]


@pytest.fixture(scope="module")
def model():
    tissue = stcsm.datasets.simulated_bulb(n_spots=100, n_genes=300, seed=1)
    GeneVAE.setup_anndata(tissue)
    return GeneVAE(tissue, n_seeds=2, min_counts=1)


def test_the_plan_is_that_of_batches_timed_here(model, monkeypatch):
    """A machine on which a batch takes longer gets a longer plan, in every stage."""
    monkeypatch.setattr("stcsm.models._cost.ENOUGH_SECONDS", 0.05)
    before = model.fingerprint()
    usual = _plan.make_plan(model, 5)
    loss = GeneVAEModule.loss

    def slow(*args, **kwargs):
        time.sleep(0.1)
        return loss(*args, **kwargs)

    monkeypatch.setattr(GeneVAEModule, "loss", slow)
    late = _plan.make_plan(model, 5)
    assert late.cost.step_seconds >= 0.1
    assert late.seconds["train"] == late.cost.steps * late.cost.step_seconds
    for stage in usual.seconds:
        ratio = late.cost.step_seconds / usual.cost.step_seconds
        assert late.seconds[stage] == pytest.approx(usual.seconds[stage] * ratio), stage
    assert set(usual.seconds) == set(_progress.STAGES) - {"read"}
    assert "null" not in _plan.make_plan(model, 5, ("null",)).seconds
    assert model.fingerprint() == before


def test_as_many_steps_are_planned_as_are_taken(model, monkeypatch):
    taken = []
    monkeypatch.setattr(_model, "fit", lambda _, __, data, how, **___: taken.append((data.steps_per_epoch, how)))
    monkeypatch.setattr(_model, "choose_smoothing", lambda *_, **__: 0.5)
    cost = training_cost(model)
    model.train(progress=False)
    ((steps, schedule),) = taken
    assert cost.steps == steps * schedule.max_epochs
    assert cost.batch_values == schedule.batch_size * model.samples.n_spots


def test_a_training_that_does_not_fit_is_refused_before_batches_are_timed(model, monkeypatch):
    weights = 4 * sum(p.numel() for p in model.module.parameters())
    monkeypatch.setattr(_memory, "available_memory", lambda: 2 * weights)
    monkeypatch.setattr(GeneVAE, "_new_module", None)
    with pytest.raises(MemoryError, match=r"4 x \d+ parameters and"):
        training_cost(model)


def test_ctrl_c_ends_the_timing_as_everywhere(model, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(GeneVAEModule, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training_cost(model)


def test_a_trained_model_is_planned_by_the_record_of_its_run(model, monkeypatch, tmp_path):
    monkeypatch.setattr("stcsm.models._cost.ENOUGH_SECONDS", 0.05)
    first = _plan.make_plan(model, 5)
    assert _plan.recorded_cost(tmp_path / "run.json") is None
    (tmp_path / "run.json").write_text(json.dumps(first.record()))
    monkeypatch.setattr(_plan, "training_cost", None)
    again = _plan.make_plan(model, 5, ("width", "train"), _plan.recorded_cost(tmp_path / "run.json"))
    assert again.seconds == {s: t for s, t in first.seconds.items() if s not in ("width", "train")}
    assert again.cost.memory == 0


def test_rates_are_those_of_the_record_of_whole_runs():
    """From nothing but runs that were measured, each term of them not negative; larger sections take longer."""
    rates, fitted = _plan.read_rates(), scale.fit_rates(json.loads(scale.RECORD.read_text())["runs"])
    assert rates["terms"] == list(_plan.TERMS)
    assert rates["from"] == fitted["from"]
    assert rates["memory"] == pytest.approx(fitted["memory"], rel=1e-6), "run: python benchmarks/scale.py --rates"
    assert set(rates["stages"]) == set(fitted["stages"])
    for stage, terms in fitted["stages"].items():
        assert rates["stages"][stage] == pytest.approx(terms, rel=1e-6), "run: python benchmarks/scale.py --rates"
    small, large = _plan.Size(10_000, 500, 2, 5).terms(), _plan.Size(100_000, 500, 2, 5).terms()
    for stage in set(_progress.STAGES) - {"read", "train"}:
        terms = np.asarray(rates["stages"][stage])
        assert (terms >= 0).all()
        assert 0 < small @ terms <= large @ terms
