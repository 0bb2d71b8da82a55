"""Training: exact resume, early stopping, settings refused before work, logs, precision, several devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stcsm.images import Architecture, ImageArray, ImageVAE
from stcsm.images.model._callbacks import SafeCheckpoints, read_state

TINY = Architecture(8, (4, 6), (3, 4), 3, 8, 4, log_var_start=-2.0)
STEPS = 5  # an epoch: 22 images, 4 a step


def images(n: int = 22, kind: type[ImageArray] = ImageArray) -> ImageArray:
    rng = np.random.default_rng(0)
    shades = np.linspace(0.1, 0.9, n)[:, None, None, None] * rng.random((1, 8, 8, 3)) + 0.05 * rng.random((n, 8, 8, 3))
    return kind(shades, pd.DataFrame({"light": np.arange(n) > n / 2}, index=[f"{k}.png" for k in range(n)]))


class Crash(BaseException):
    """Not an Exception: no handler of errors catches it."""


class Fragile(ImageArray):
    """Raises when the n-th batch is read."""

    left = 10**9

    def stack(self, rows: object) -> torch.Tensor:
        Fragile.left -= 1
        if Fragile.left < 0:
            raise Crash
        return super().stack(rows)


def weights(model: ImageVAE) -> dict[str, np.ndarray]:
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def train(out: Path | None, epochs: int = 3, data: ImageArray | None = None, **settings: object):
    model = ImageVAE(TINY)
    held_out = images(10)
    how = {"batch_size": 4, "accelerator": "cpu", "progress": False, "log": None, "grids": False, **settings}
    history = model.fit(data or images(), out, validation=held_out, max_epochs=epochs, **how)
    return weights(model), history


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory):
    return train(tmp_path_factory.mktemp("whole") / "run", patience=2)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


# every point where a run can be interrupted: within an epoch, at its first and last step, and in several epochs
@pytest.mark.parametrize("asked", [3, 5, 6, 7, 8, 12, 14])
def test_resumed_run_ends_bit_for_bit_where_it_would_have(asked: int, never_killed, tmp_path: Path) -> None:
    Fragile.left = asked
    with pytest.raises(Crash):
        train(tmp_path / "run", data=images(kind=Fragile), patience=2, checkpoint_every=2)
    assert read_state(tmp_path / "run" / "checkpoints" / "last.safetensors")["global_step"] > 0
    Fragile.left = 10**9
    got, history = train(tmp_path / "run", data=images(kind=Fragile), patience=2, checkpoint_every=2)
    assert 10**9 - Fragile.left < 3 * STEPS  # it resumed, and did not start again
    wanted, whole = never_killed
    assert same(got, wanted)
    pd.testing.assert_frame_equal(history, whole, check_exact=True)


_SCRIPT = """
import os, signal, sys
from pathlib import Path
import test_training as t

class Deadly(t.ImageArray):
    left = int(sys.argv[2])
    def stack(self, rows):
        Deadly.left -= 1
        if not Deadly.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().stack(rows)

t.train(Path(sys.argv[1]), data=t.images(kind=Deadly), patience=2, checkpoint_every=2, log="csv", grids=True)
"""


@pytest.mark.slow
def test_killed_process_is_resumed_bit_for_bit(never_killed, tmp_path: Path) -> None:
    folder = str(Path(__file__).parent)
    path = os.pathsep.join([folder, *(p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p)])

    def run(kill_at: int) -> int:
        command = [sys.executable, "-c", _SCRIPT, str(tmp_path / "run"), str(kill_at)]
        return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False, timeout=300).returncode

    assert run(5) == -signal.SIGKILL
    assert run(7) == -signal.SIGKILL  # and once more, some steps later
    assert run(10**9) == 0
    assert same(weights(ImageVAE.load(tmp_path / "run" / "model")), never_killed[0])
    left = [p.name for p in (tmp_path / "run").rglob(".*") if p.is_file()]
    assert not left


def test_finished_run_goes_on_with_more_epochs(never_killed, tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1, patience=2)
    got, history = train(tmp_path / "run", epochs=3, patience=2)
    assert same(got, never_killed[0])
    assert list(history.index) == [1, 2, 3]
    again, _ = train(tmp_path / "run", epochs=3, patience=2)  # nothing left to do
    assert same(again, got)


def test_same_seed_same_weights_without_a_folder(never_killed) -> None:
    assert same(train(None, patience=2)[0], never_killed[0])
    assert not same(train(None, patience=2, seed=1)[0], never_killed[0])


def test_users_random_numbers_are_left_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(None, epochs=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_early_stopping_keeps_the_best_epoch(tmp_path: Path) -> None:
    # so large a step that the loss soon gets worse
    _, history = train(tmp_path / "run", epochs=30, patience=2, lr=0.05)
    best = int(history["val_loss"].idxmin())
    assert len(history) == best + 2 < 30
    kept = ImageVAE.load(tmp_path / "run" / "model")
    wanted, _ = train(None, epochs=best, lr=0.05)
    assert same(weights(kept), wanted)
    _, again = train(tmp_path / "run", epochs=30, patience=2, lr=0.05)  # a run that has stopped stays so
    pd.testing.assert_frame_equal(again, history)


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"Expected a finite loss, found .* use a smaller lr"):
        train(tmp_path / "run", epochs=30, lr=1e4)
    assert not (tmp_path / "run" / "model").exists()


def test_validation_does_not_change_the_training() -> None:
    model = ImageVAE(TINY)
    history = model.fit(images(), max_epochs=3, batch_size=4, accelerator="cpu", progress=False)
    wanted, with_held_out = train(None)
    assert same(weights(model), wanted)
    assert list(history.columns) == ["step", "loss", "reconstruction", "divergence"]
    np.testing.assert_array_equal(history["loss"], with_held_out["loss"])
    assert not model.training


def test_steps_per_epoch_only_cut_the_same_run_differently() -> None:
    long, _ = train(None, epochs=2, steps_per_epoch=6)
    short, history = train(None, epochs=4, steps_per_epoch=3)
    assert same(long, short)
    assert list(history["step"]) == [3, 6, 9, 12]


def test_loss_in_the_history_is_the_models(never_killed) -> None:
    history = never_killed[1]
    np.testing.assert_allclose(
        history["loss"], history["reconstruction"] + TINY.kl_weight * history["divergence"], rtol=1e-6
    )
    np.testing.assert_allclose(
        history["val_loss"], history["val_reconstruction"] + TINY.kl_weight * history["val_divergence"], rtol=1e-6
    )


@pytest.mark.parametrize("log", ["csv", "tensorboard"])
def test_logs_and_grids(log: str, tmp_path: Path) -> None:
    if log == "tensorboard":
        pytest.importorskip("tensorboard")
    train(tmp_path / "run", epochs=2, log=log, grids=True)
    assert sorted(p.name for p in (tmp_path / "run" / "grids").iterdir()) == [
        "epoch_0001_reconstructions.png",
        "epoch_0001_samples.png",
        "epoch_0002_reconstructions.png",
        "epoch_0002_samples.png",
    ]
    files = list((tmp_path / "run" / "log" / "version_0").iterdir())
    if log == "csv":
        steps = pd.read_csv(tmp_path / "run" / "log" / "version_0" / "metrics.csv")
        assert {"train_loss", "val_loss", "step"} <= set(steps.columns)
    else:
        assert any("tfevents" in p.name and p.stat().st_size > 1000 for p in files)


def test_grids_and_logs_do_not_change_the_weights(never_killed, tmp_path: Path) -> None:
    assert same(train(tmp_path / "run", patience=2, log="csv", grids=True)[0], never_killed[0])


def test_mixed_precision_learns() -> None:
    _, history = train(None, epochs=4, precision="bf16-mixed")
    assert np.isfinite(history.to_numpy()).all()
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 23}, "at most the 22 images"),
        ({"batch_size": 1}, "batch_size to be an integer of at least 2"),
        ({"epochs": 0}, "max_epochs"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"lr": 0.0}, "positive lr"),
        ({"lr": float("nan")}, "positive lr"),
        ({"patience": 0}, "patience"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"log": "wandb"}, "'csv', 'tensorboard' or None"),
    ],
)
def test_settings_out_of_range_are_refused_before_any_work(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"Expected.*{message}.*found"):
        train(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_images_that_do_not_fit_are_refused() -> None:
    model = ImageVAE(TINY)
    with pytest.raises(ValueError, match="size 8, found size 16; read them with size=8"):
        model.fit(ImageArray(np.zeros((4, 16, 16, 3)), pd.DataFrame({"a": [True] * 4})), batch_size=2)
    with pytest.raises(ValueError, match="Expected validation images, since patience is given"):
        model.fit(images(), batch_size=4, patience=2)
    with pytest.raises(ValueError, match="found ndarray"):
        model.fit(np.zeros((4, 8, 8, 3)))  # type: ignore[arg-type]


def test_folders_that_hold_other_things_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileExistsError, match=r"found 'mine.txt'"):
        train(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"lr 0.5, found 0.001; call with that, or choose another folder"):
        train(tmp_path / "run", epochs=2, lr=0.5)
    with pytest.raises(ValueError, match=r"images '21 images.*found '22 images"):
        train(tmp_path / "run", epochs=2, data=images(21))
    with pytest.raises(FileExistsError, match="resume=True"):
        train(tmp_path / "run", epochs=2, resume=False)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == before


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path / "run", epochs=1)
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"Expected a checkpoint.*last.safetensors.*damaged.*delete it"):
        train(tmp_path / "run", epochs=2)


def test_checkpoints_hold_what_was_put_in(tmp_path: Path) -> None:
    state = {"a": {0: (1, 2.5, None), "x": [True, float("inf")]}, "t": torch.arange(3), "n": {"tensor": "0"}, "e": {}}
    SafeCheckpoints().save_checkpoint(state, tmp_path / "c.safetensors")
    got = SafeCheckpoints().load_checkpoint(tmp_path / "c.safetensors")
    assert torch.equal(got.pop("t"), state.pop("t"))
    assert got == state
    with pytest.raises(TypeError, match="plain values"):
        SafeCheckpoints().save_checkpoint({"f": object()}, tmp_path / "d.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


_DDP = """
import sys
from pathlib import Path
import test_training as t

if __name__ == "__main__":
    t.train(Path(sys.argv[1]), strategy="ddp", devices=2, epochs=2, grids=True)
"""


@pytest.mark.slow
def test_two_processes_share_each_batch(tmp_path: Path) -> None:
    script = tmp_path / "ddp.py"
    script.write_text(_DDP)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "RANK", "LOCAL_RANK", "WORLD"))}
    command = [sys.executable, str(script), str(tmp_path / "run")]
    subprocess.run(command, env=environment | {"PYTHONPATH": path}, check=True, timeout=300)
    history = pd.read_csv(tmp_path / "run" / "history.csv", index_col="epoch")
    alone = train(None, epochs=2)[1]
    assert list(history["step"]) == list(alone["step"])
    # batch statistics are each device's own, so the numbers differ a little
    np.testing.assert_allclose(history["loss"], alone["loss"], rtol=0.1)
    assert not np.array_equal(history["loss"], alone["loss"])
    ImageVAE.load(tmp_path / "run" / "model")
