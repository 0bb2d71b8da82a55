"""Crops on disk: the same images as on the fly, resumable, every excluded image listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stcsm.images import CelebA, ImageFolder, crop_faces

from .celeba_copy import kaggle, names, official, tables, write_images

N = 12


def test_crops_on_disk_are_the_crops_on_the_fly(tmp_path: Path) -> None:
    data = CelebA(official(tmp_path / "a", N), size=48)
    report = crop_faces(data, tmp_path / "b", suffix="png", progress=False)
    assert (report.written, report.kept, dict(report.unreadable)) == (N, 0, {})
    crops = CelebA(report.folder, size=48)
    np.testing.assert_array_equal(crops.stack(np.arange(N)), data.stack(np.arange(N)))
    np.testing.assert_array_equal(crops.attributes, data.attributes)
    np.testing.assert_array_equal(crops.partition, data.partition)
    # a JPEG of the published quality of the images loses a little
    jpg = CelebA(crop_faces(data, tmp_path / "c", progress=False).folder, size=48)
    assert list(jpg.names) == list(data.names)
    assert np.abs(jpg.stack(np.arange(N)).float() - data.stack(np.arange(N)).float()).max() <= 8
    assert CelebA(tmp_path / "c", size=16)[0].shape == (3, 16, 16)
    with pytest.raises(ValueError, match=r"at most 48.*found 128; pass size=48"):
        CelebA(tmp_path / "c")


def test_workers_write_the_same(tmp_path: Path) -> None:
    data = CelebA(kaggle(tmp_path / "a", N), size=32)
    for workers in (0, 2):
        crop_faces(data, tmp_path / str(workers), workers=workers, progress=False)
    for name in names(N):
        one, two = (tmp_path / w / "img_align_celeba" / name for w in "02")
        assert one.read_bytes() == two.read_bytes()


def test_interrupted_cropping_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = CelebA(kaggle(tmp_path / "a", 80), size=32)
    read, asked = CelebA._pixels, []

    def breaks_off(self: CelebA, row: int) -> np.ndarray:
        asked.append(row)
        if len(asked) == 50:
            raise KeyboardInterrupt
        return read(self, row)

    monkeypatch.setattr(CelebA, "_pixels", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        crop_faces(data, tmp_path / "b", progress=False)
    with pytest.raises(ValueError, match=r"Expected finished crops.*call crop_faces again"):
        CelebA(tmp_path / "b", size=32)
    report = crop_faces(data, tmp_path / "b", progress=False)
    assert (report.written, report.kept) == (31, 49)
    assert len(asked) == 50 + 31
    assert len(CelebA(tmp_path / "b", size=32)) == 80
    assert not list((tmp_path / "b").rglob("*.part"))


def test_everything_left_out_is_listed(tmp_path: Path) -> None:
    kaggle(tmp_path / "a", N)
    points = tables(N)[1]
    points.iloc[2] = [300, 111, 340, 111, 88, 135, 72, 152, 105, 152]  # right of the image
    points.drop(names(N)[3]).to_csv(tmp_path / "a" / "list_landmarks_align_celeba.csv", index_label="image_id")
    folder = tmp_path / "a" / "img_align_celeba" / "img_align_celeba"
    (folder / names(N)[4]).unlink()
    (folder / names(N)[5]).write_bytes((folder / names(N)[5]).read_bytes()[:900])  # cut short
    with pytest.warns(UserWarning, match="1 without a file"):
        data = CelebA(tmp_path / "a", size=32)
    with pytest.warns(UserWarning, match=r"8 crops written.*1 unreadable \(first 000006.jpg\)"):
        report = crop_faces(data, tmp_path / "b", progress=False)
    assert list(report.unreadable) == [names(N)[5]]
    lost = pd.read_csv(tmp_path / "b" / "left_out.csv", index_col="image_id")["reason"]
    assert set(lost.index) == {names(N)[k] for k in (2, 3, 4, 5)}
    assert lost[names(N)[2]] == "empty crop"
    assert "damaged" in lost[names(N)[5]]
    crops = CelebA(tmp_path / "b", size=32)
    assert set(crops.names) | set(lost.index) == set(names(N))
    assert crops.inventory.used == crops.inventory.listed == N - 4
    # the next call tries the unreadable one again, and only that
    with pytest.warns(UserWarning, match="0 crops written, 8 existed already, 1 unreadable"):
        crop_faces(data, tmp_path / "b", progress=False)


def test_masks_come_along(faces: Path, tmp_path: Path) -> None:
    data = CelebA(faces, size=64).take(np.arange(30))
    crops = CelebA(crop_faces(data, tmp_path / "b", progress=False).folder, size=64)
    for name in ("Wearing_Hat", "Smiling"):
        np.testing.assert_array_equal(crops.masks(name), data.masks(name))


def test_a_users_own_folder_is_resized(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 3)
    table = pd.DataFrame({"happy": [1, 0, 1]}, index=names(3))
    data = ImageFolder(tmp_path / "mine", table, size=32)
    crops = CelebA(crop_faces(data, tmp_path / "small", suffix="png", progress=False).folder, size=32)
    np.testing.assert_array_equal(crops.stack([0, 1, 2]), data.stack([0, 1, 2]))
    assert crops.partition is None


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    data = CelebA(official(tmp_path / "a", 3), size=32)
    before = {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match="Expected another folder than that of the images"):
        crop_faces(data, tmp_path / "a" / "Img", progress=False)
    with pytest.raises(FileExistsError, match="found other files"):
        crop_faces(data, tmp_path / "a" / "Anno", progress=False)
    assert {p: p.read_bytes() for p in (tmp_path / "a").rglob("*") if p.is_file()} == before
    crop_faces(data, tmp_path / "b", progress=False)
    with pytest.raises(FileExistsError, match=r"Expected crops with quality 80 .*, found 95"):
        crop_faces(data, tmp_path / "b", quality=80, progress=False)
    with pytest.raises(FileExistsError, match=r"Expected crops with size 16 .*, found 32"):
        crop_faces(CelebA(tmp_path / "a", size=16), tmp_path / "b", progress=False)
    (tmp_path / "b" / "crop.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="damaged"):
        CelebA(tmp_path / "b", size=32)


def test_crops_of_other_images_with_the_same_names_are_not_reused(tmp_path: Path) -> None:
    first = CelebA(kaggle(tmp_path / "a", 4), size=32)
    crop_faces(first, tmp_path / "out", progress=False)
    other = CelebA(kaggle(tmp_path / "b", 4, seed=1), size=32)  # other landmarks, so other crops
    with pytest.raises(FileExistsError, match="Expected crops with"):
        crop_faces(other, tmp_path / "out", progress=False)


@pytest.mark.parametrize("wrong", [{"suffix": "gif"}, {"quality": 0}, {"workers": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    data = CelebA(kaggle(tmp_path / "a", 3), size=32)
    with pytest.raises(ValueError, match="Expected suffix"):
        crop_faces(data, tmp_path / "b", progress=False, **wrong)
    assert not (tmp_path / "b").exists()


def test_names_that_differ_in_their_suffix_alone_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", 1, "jpg")
    write_images(tmp_path / "mine", 1, "png")
    table = pd.DataFrame({"happy": [1, 0]}, index=["000001.jpg", "000001.png"])
    with pytest.raises(ValueError, match="differ in more than their suffix"):
        crop_faces(ImageFolder(tmp_path / "mine", table, size=16), tmp_path / "b", progress=False)
