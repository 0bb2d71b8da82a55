"""Simulated faces: their truth, their layout, and that an image depends on its number alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stcsm.datasets import FACE_ATTRIBUTES, simulated_faces
from stcsm.datasets._faces_draw import HEIGHT, WIDTH, draw, landmarks
from stcsm.datasets._faces_scene import draw_scenes

N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_faces(tmp_path_factory.mktemp("faces") / "out", N, progress=False)


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.txt", sep=r"\s+", skiprows=2, header=None, index_col=0)


def test_layout_is_celebas(folder: Path) -> None:
    lines = (folder / "list_attr_celeba.txt").read_text().splitlines()
    assert lines[0] == str(N)
    assert lines[1] == " ".join(FACE_ATTRIBUTES) + " "
    assert lines[2].split()[0] == "000001.jpg"
    assert set(table(folder, "list_attr_celeba").to_numpy().ravel()) == {-1, 1}
    assert (folder / "list_landmarks_align_celeba.txt").read_text().splitlines()[1].split()[:3] == [
        "lefteye_x",
        "lefteye_y",
        "righteye_x",
    ]
    parts = [line.split()[1] for line in (folder / "list_eval_partition.txt").read_text().splitlines()]
    assert parts == ["0"] * 48 + ["1"] * 6 + ["2"] * 6
    images = sorted((folder / "img_align_celeba").iterdir())
    assert len(images) == N
    with Image.open(images[0]) as image:
        assert (image.size, image.mode, image.format) == ((178, 218), "RGB", "JPEG")


def test_a_mask_for_each_attribute_that_is_there(folder: Path) -> None:
    signs = table(folder, "list_attr_celeba").set_axis(FACE_ATTRIBUTES, axis=1)
    for name in FACE_ATTRIBUTES:
        masks = {p.stem + ".jpg" for p in (folder / "masks" / name).iterdir()}
        assert masks == set(signs.index[signs[name] == 1])
        for path in (folder / "masks" / name).iterdir():
            with Image.open(path) as mask:
                assert mask.mode == "1"
                assert mask.size == (178, 218)
                assert 10 < np.asarray(mask).sum() < 15_000


def test_mask_holds_what_the_attribute_changes() -> None:
    """Draw the same face with and without: the pixels that differ are the mask, but for shadows and soft edges."""
    scene = draw_scenes(np.arange(40), 0, 0.5)
    for k, name in enumerate(FACE_ATTRIBUTES):
        inside, outside, hit = [], [], []
        for row in range(40):
            face = scene.face(row)
            face.has = np.zeros(5, bool)
            without, none = draw(face)
            assert not none.any()
            face.has[k] = True
            with_it, masks = draw(face)
            assert not masks[np.arange(5) != k].any()
            change = np.abs(with_it.astype(int) - without.astype(int)).max(axis=2)
            inside.append(change[masks[k]].mean())
            outside.append(change[~masks[k]].mean())
            hit.append((change[masks[k]] > 3).mean())
        assert np.mean(inside) > 20 * np.mean(outside), name
        assert np.mean(hit) > 0.8, name


def test_what_covers_another_takes_its_pixels() -> None:
    scene = draw_scenes(np.arange(60), 1, 0.5)
    for row in range(60):
        face = scene.face(row)
        face.has = np.ones(5, bool)
        masks = draw(face)[1]
        assert masks.sum(axis=0).max() == 1


def test_attributes_are_independent_and_as_frequent_as_asked() -> None:
    n = 4000
    scene = draw_scenes(np.arange(n), 3, 0.3)
    np.testing.assert_allclose(scene.has.mean(axis=0), 0.3, atol=4 * np.sqrt(0.21 / n))
    traits = [scene.traits[t] for t in ("x", "y", "scale", "roll", "yaw", "gain", "light_x", "mouth_w", "head_rx")]
    everything = np.column_stack([scene.has, *traits, scene.traits["skin"], scene.traits["hair"]])
    correlation = np.corrcoef(everything, rowvar=False)[:5]
    correlation[:, :5] -= np.eye(5)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(n)


def test_image_depends_on_seed_and_number_alone(folder: Path, tmp_path: Path) -> None:
    few = simulated_faces(tmp_path / "few", 3, masks=False, progress=False)
    assert not (few / "masks").exists()
    for name in ("000001.jpg", "000003.jpg"):
        assert (few / "img_align_celeba" / name).read_bytes() == (folder / "img_align_celeba" / name).read_bytes()
    other = simulated_faces(tmp_path / "other", 3, seed=1, progress=False)
    assert (other / "img_align_celeba" / "000001.jpg").read_bytes() != (
        folder / "img_align_celeba" / "000001.jpg"
    ).read_bytes()


def test_landmarks_lie_where_the_features_are(folder: Path) -> None:
    scene = draw_scenes(np.arange(N), 0, 0.5)
    points = landmarks(scene)
    np.testing.assert_array_equal(table(folder, "list_landmarks_align_celeba"), points)
    assert ((points >= 0) & (points < np.tile([WIDTH, HEIGHT], 5))).all()
    eyes = points[:, 2] - points[:, 0]
    assert 25 < eyes.min() <= eyes.max() < 50  # CelebA's lie about 39 apart
    for row in range(10):  # a dark pupil at each eye, whose white is around it
        face = scene.face(row)
        face.has, face.gaze, face.noise = np.zeros(5, bool), 0.0, 0.0
        pixels = draw(face)[0].astype(int).sum(axis=2)
        for x, y in (points[row, :2], points[row, 2:4]):
            assert pixels[y - 1 : y + 2, x - 1 : x + 2].min() < 90
            assert pixels[y - 6 : y + 7, x - 9 : x + 10].max() > pixels[y, x] + 200


def test_kaggle_layout_holds_the_same(folder: Path, tmp_path: Path) -> None:
    other = simulated_faces(tmp_path / "kaggle", 5, layout="kaggle", masks=False, progress=False)
    frame = pd.read_csv(other / "list_attr_celeba.csv", index_col="image_id")
    np.testing.assert_array_equal(frame, table(folder, "list_attr_celeba").iloc[:5])
    assert len(list((other / "img_align_celeba" / "img_align_celeba").iterdir())) == 5


def test_nothing_of_the_users_is_replaced(tmp_path: Path) -> None:
    out = simulated_faces(tmp_path / "out", 2, progress=False)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        simulated_faces(out, 3, progress=False)
    simulated_faces(out, 3, overwrite=True, progress=False)
    assert len(list((out / "img_align_celeba").iterdir())) == 3
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"found 'notes.txt'"):
        simulated_faces(out, 2, overwrite=True, progress=False)
    real = tmp_path / "celeba"  # the real one has the same names
    (real / "img_align_celeba").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="found 'other images'"):
        simulated_faces(real, 2, overwrite=True, progress=False)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_settings_are_recorded(folder: Path) -> None:
    settings = json.loads((folder / "simulated_faces.json").read_text())
    assert settings == {"n": N, "seed": 0, "prevalence": 0.5, "masks": True, "layout": "official"}


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": 2.5}, {"prevalence": 1.5}, {"layout": "zip"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected.*found"):
        simulated_faces(tmp_path / "out", **{"n": 2, **wrong}, progress=False)
    assert not (tmp_path / "out").exists()
