"""``stcsm faces`` from files to files."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stcsm.cli import main
from stcsm.images import CelebA, ImageVAE, encode
from stcsm.images._run import results_folder


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def stcsm_faces(*args) -> Done:
    """Run a command in this process: a fresh one takes seconds to import torch."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["stcsm", "faces", *map(str, args)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = before
    return Done(status, out.getvalue(), err.getvalue())


def refused(done: Done, message: str) -> None:
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stcsm: ")
    assert message in last


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    """Crops, a model and its concepts, each written by its command."""
    out = tmp_path_factory.mktemp("cli")
    for args in (
        ["crop", faces, "--out", out / "crops"],
        [
            "train",
            out / "crops",
            "--out",
            out / "run",
            "--size",
            32,
            "--epochs",
            1,
            "--accelerator",
            "cpu",
            "--in-memory",
        ],
        ["concepts", out / "crops", "--model", out / "run", "--out", out / "concepts"],
    ):
        done = stcsm_faces(*args, "--quiet")
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout == ""
    return out


def test_crops_are_the_published_crop(trained, faces):
    whole, crops = CelebA(faces, size=64), CelebA(trained / "crops", size=64)
    assert len(whole) == len(crops)
    difference = np.abs(whole.stack([0, 5]).float() - crops.stack([0, 5]).float())
    assert float(difference.mean()) < 12  # JPEG, and resized twice


def test_concepts_are_means_with_minus_means_without(trained):
    data = CelebA(trained / "crops", size=32)
    latents = np.load(trained / "concepts" / "latents.npy")
    model = ImageVAE.load(trained / "run" / "model")
    np.testing.assert_allclose(latents, encode(model, data, progress=False), rtol=1e-4, atol=1e-5)
    vectors = pd.read_csv(trained / "concepts" / "concept_vectors.csv", index_col="attribute")
    train = (data.partition == "train").to_numpy()
    has = data.attributes["Eyeglasses"].to_numpy()
    wanted = latents[train & has].mean(axis=0) - latents[train & ~has].mean(axis=0)
    np.testing.assert_allclose(vectors.loc["Eyeglasses"], wanted, atol=1e-5)
    scores = pd.read_csv(trained / "concepts" / "concept_scores.csv", index_col="image")
    assert list(scores.index) == list(data.names)
    np.testing.assert_allclose(scores["Eyeglasses"], latents @ wanted, rtol=1e-3, atol=1e-4)
    told = pd.read_csv(trained / "concepts" / "performance.csv", index_col="attribute")
    assert told.loc["Eyeglasses", "n_with"] == has[(data.partition == "test").to_numpy()].sum()
    for name in ("histograms.png", "traversal.png"):
        with Image.open(trained / "concepts" / name) as image:
            assert min(image.size) > 200


def test_saliency_of_the_top_scoring_test_images(trained, tmp_path):
    done = stcsm_faces(
        "saliency", trained / "crops", "--model", trained / "run", "--concepts", trained / "concepts",
        "--out", tmp_path, "--attribute", "Wearing_Hat", "-n", 2, "--part", "test", "--method", "rectgrad",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    table = pd.read_csv(tmp_path / "images.csv")
    scores = pd.read_csv(trained / "concepts" / "concept_scores.csv", index_col="image")["Wearing_Hat"]
    data = CelebA(trained / "crops", size=32)
    best = scores[(data.partition == "test").to_numpy()].nlargest(2)
    assert list(table["image"]) == list(best.index)
    with np.load(tmp_path / "maps_rectgrad.npz") as maps:
        assert maps["maps"].shape == (1, 2, 32, 32, 3)
    assert {p.name for p in tmp_path.iterdir()} == {
        "maps_rectgrad.npz", "overlay_rectgrad.png", "images.csv", "saliency_rectgrad.png",
    }  # fmt: skip


def test_saliency_of_a_named_image(trained, tmp_path):
    common = ["saliency", trained / "crops", "--model", trained / "run", "--concepts", trained / "concepts"]
    done = stcsm_faces(*common, "--out", tmp_path / "o", "--image", "000007.jpg", "--quiet")
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(pd.read_csv(tmp_path / "o" / "images.csv")["image"]) == {"000007.jpg"}
    refused(stcsm_faces(*common, "--out", tmp_path / "p", "--image", "nobody.jpg"), "'nobody.jpg'")
    refused(stcsm_faces(*common, "--out", tmp_path / "p", "--method", "magic"), "--method to be one of")
    refused(stcsm_faces(*common, "--out", tmp_path / "p", "--attribute", "Bald"), "'Bald'")
    assert not (tmp_path / "p").exists()


def test_concepts_of_another_model_are_refused(trained, tmp_path):
    ImageVAE.preset(32, seed=5).save(tmp_path / "other")
    args = ["saliency", trained / "crops", "--model", tmp_path / "other", "--concepts", trained / "concepts"]
    refused(stcsm_faces(*args, "--out", tmp_path / "o"), "those of another model")


def test_own_folder_with_own_table(trained, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    for k in range(12):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"p{k}.png")
    pd.DataFrame({"image": [f"p{k}.png" for k in range(12)], "nice": [k % 2 for k in range(12)]}).to_csv(
        tmp_path / "table.csv", index=False
    )
    done = stcsm_faces(
        "concepts", folder, "--model", trained / "run", "--no-crop", "--attributes", tmp_path / "table.csv", "--out",
        tmp_path / "o",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "o" / "concepts.json").read_text())["images"] == 12
    assert len(pd.read_csv(tmp_path / "o" / "concept_scores.csv")) == 12


def test_bad_input_ends_with_one_line(faces, trained, tmp_path):
    refused(stcsm_faces("crop", tmp_path / "no", "--out", tmp_path / "o"), "found no folder")
    refused(stcsm_faces("train", faces, "--out", tmp_path / "o", "--size", 48), "--size to be one of")
    (tmp_path / "tables").mkdir()
    shutil.copy(faces / "list_attr_celeba.txt", tmp_path / "tables")
    refused(stcsm_faces("crop", tmp_path / "tables", "--out", tmp_path / "o"), "or give --images their folder")
    refused(stcsm_faces("concepts", faces, "--model", tmp_path, "--out", tmp_path / "o"), "model.safetensors")
    asked = ["concepts", faces, "--model", trained / "run", "--out", tmp_path / "o"]
    refused(stcsm_faces(*asked, "--attribute", "Bald"), "'Bald'")
    refused(stcsm_faces(*asked, "--estimator", "magic"), "Expected --estimator contrast or cav")
    assert not (tmp_path / "o").exists()


def test_advice_works_in_the_shell(faces, trained, tmp_path):
    """An option that the command at hand has; none of another command, no argument of Python."""
    without = tmp_path / "without"
    shutil.copytree(faces, without)
    for path in without.rglob("list_landmarks*"):
        path.unlink()
    crop = stcsm_faces("crop", without, "--out", tmp_path / "o")
    refused(crop, "give --landmarks its path.")  # crop has no --no-crop
    refused(stcsm_faces("train", without, "--out", tmp_path / "o", "--size", 32), "its path, or --no-crop.")
    size = json.loads((trained / "crops" / "crop.json").read_text())["settings"]["size"]
    shutil.copytree(trained / "crops", tmp_path / "crops")
    mark = tmp_path / "crops" / "crop.json"
    mark.write_text(mark.read_text().replace(f'"size": {size}', '"size": 16'))
    asked = stcsm_faces("train", tmp_path / "crops", "--out", tmp_path / "o", "--size", 32)
    refused(asked, "pass --size 16, or crop the original images again")
    asked = stcsm_faces("concepts", tmp_path / "crops", "--model", trained / "run", "--out", tmp_path / "o")
    refused(asked, "train with --size 16, or crop the original images again")
    mark.write_text(mark.read_text().replace('"complete": true', '"complete": false'))
    asked = stcsm_faces("train", tmp_path / "crops", "--out", tmp_path / "o", "--size", 32)
    refused(asked, "run stcsm faces crop again to write the rest")
    image = next(without.rglob("*.jpg"))
    image.write_bytes(b"<html>not found</html>")
    arguments = ["--no-crop", "--size", 32, "--epochs", 1, "--quiet"]
    refused(stcsm_faces("train", without, "--out", tmp_path / "o", *arguments), "Copy them again, or delete their rows")
    arguments[-1:] = ["--batch-size", 1000]
    refused(stcsm_faces("train", trained / "crops", "--out", tmp_path / "p", *arguments), "a --batch-size of at most")


def test_results_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(FileNotFoundError), results_folder(tmp_path, ["a.csv", "b/"]) as scratch:
        (scratch / "a.csv").write_text((scratch / "no.csv").read_text())
    assert (tmp_path / "a.csv").read_text() == "old"
    with results_folder(tmp_path, ["a.csv", "b/"]) as scratch:
        (scratch / "a.csv").write_text("new")
        (scratch / "b").mkdir()
    assert (tmp_path / "a.csv").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", "b", "thesis.txt"}
    with pytest.raises(FileExistsError, match=r"room for a\.csv/"), results_folder(tmp_path, ["a.csv/"]):
        pass
    with pytest.raises(FileExistsError, match="found a file"), results_folder(tmp_path / "a.csv", []):
        pass


def test_a_failed_run_leaves_no_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), results_folder(tmp_path / "new", ["a"]):
        1 / 0
    assert not (tmp_path / "new").exists()


def test_help_loads_nothing_heavy():
    check = (
        "import sys; sys.argv = ['stcsm']; import stcsm.cli; "
        "print([m for m in ('torch', 'lightning', 'matplotlib', 'pandas', 'anndata') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    done = stcsm_faces("--help")
    for command in ("crop", "train", "concepts", "saliency", "demo"):
        assert command in done.stdout


def test_no_partition_holds_a_fifth_out(trained, tmp_path):
    shutil.copytree(trained / "crops", tmp_path / "crops")
    for table in Path(tmp_path / "crops").glob("list_eval_partition*"):
        table.unlink()
    done = stcsm_faces("concepts", tmp_path / "crops", "--model", trained / "run", "--out", tmp_path / "o", "--quiet")
    assert done.returncode == 0, done.stderr[-3000:]
    told = pd.read_csv(tmp_path / "o" / "performance.csv", index_col="attribute")
    assert ((told["n_with"] + told["n_without"]) == len(CelebA(tmp_path / "crops", size=32)) // 5).all()
