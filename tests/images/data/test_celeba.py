"""Copies of CelebA in every layout, and the inventory of each."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from stcsm.images import CelebA, ImageFolder

from .celeba_copy import ATTRIBUTES, gradient, kaggle, names, official, tables, write_images

N = 12


@pytest.fixture(params=["official", "kaggle", "kaggle, empty first cell"])
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "official":
        return official(tmp_path, N)
    return kaggle(tmp_path, N, empty_header="empty" in request.param)


def expected_crop(points: np.ndarray, size: int) -> np.ndarray:
    """The published rule, on the image whose pixels are their own positions, nearest neighbours of pixel centres."""
    top, bottom, left, right = points[5] - 105, points[7] + 35, points[0] - 50, points[2] + 50
    rows = top + np.floor((np.arange(size) + 0.5) * (bottom - top) / size).astype(int)
    columns = left + np.floor((np.arange(size) + 0.5) * (right - left) / size).astype(int)
    return gradient()[np.ix_(rows, columns)]


def test_every_layout_gives_the_same_data(copy: Path) -> None:
    signs, points, part = tables(N)
    data = CelebA(copy, size=64)
    assert list(data.names) == names(N)
    assert list(data.attributes.columns) == ATTRIBUTES
    np.testing.assert_array_equal(data.attributes, signs > 0)
    np.testing.assert_array_equal(data.partition, np.array(["train", "valid", "test"])[part])
    assert (data.inventory.listed, data.inventory.used) == (N, N)
    for row in (0, N - 1):
        wanted = expected_crop(points.iloc[row].to_numpy(), 64)
        got = data[row].permute(1, 2, 0).numpy()
        assert np.abs(got.astype(int) - wanted).max() <= 5  # JPEG
    assert [len(data.part(p)) for p in ("train", "valid", "test")] == [4, 4, 4]


def test_crop_is_exact_on_lossless_images(tmp_path: Path) -> None:
    signs, points, _ = tables(3)
    write_images(tmp_path / "img_align_celeba_png", 3, "png")
    index = signs.index.str.replace("jpg", "png")
    signs.set_axis(index).to_csv(tmp_path / "list_attr_celeba.csv", index_label="image_id")
    points.set_axis(index).to_csv(tmp_path / "list_landmarks_align_celeba.csv", index_label="image_id")
    data = CelebA(tmp_path, size=128)
    for row in range(3):
        wanted = expected_crop(points.iloc[row].to_numpy(), 128)
        np.testing.assert_array_equal(data[row].permute(1, 2, 0), wanted)


@pytest.mark.slow
def test_the_png_release_whose_tables_say_jpg(tmp_path: Path) -> None:
    """CelebA's lossless images have the tables of the others."""
    official(tmp_path, N)
    jpg = tmp_path / "Img" / "img_align_celeba"
    jpg.rename(tmp_path / "Img" / "aside")
    write_images(tmp_path / "Img" / "img_align_celeba_png", N, "png")
    signs, points, part = tables(N)
    with pytest.warns(UserWarning, match=r"12 of 12 images used; .*12 with another suffix than listed \(000001.png, "):
        data = CelebA(tmp_path, size=64, images=tmp_path / "Img" / "img_align_celeba_png")
    assert list(data.names) == [name.replace("jpg", "png") for name in names(N)]
    np.testing.assert_array_equal(data.attributes, signs > 0)
    np.testing.assert_array_equal(data.partition, np.array(["train", "valid", "test"])[part])
    assert data.inventory.missing == data.inventory.extra == data.inventory.unplaced == ()
    assert data.inventory.by_stem == tuple(data.names)
    wanted = expected_crop(points.iloc[3].to_numpy(), 64)
    np.testing.assert_array_equal(data[3].permute(1, 2, 0), wanted)


def test_of_two_files_of_one_stem_the_listed_one_is_taken(tmp_path: Path) -> None:
    write_images(tmp_path, 3, "jpg")
    write_images(tmp_path, 3, "png")
    data = ImageFolder(tmp_path, tables(3)[0], size=8)
    assert list(data.names) == names(3)
    assert data.inventory.by_stem == ()
    assert data.inventory.extra == ("000001.png", "000002.png", "000003.png")


@pytest.mark.parametrize("suffix", ["jpg", "JPG", "jpeg", "png", ""])
def test_rows_keep_their_values_whatever_suffix_the_table_says(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path, 4, "png")
    signs = tables(4)[0].iloc[::-1]
    listed = signs.set_axis([name.replace(".jpg", f".{suffix}" if suffix else "") for name in signs.index])
    part = pd.Series(["train", "valid", "test", "train"], index=signs.index)  # says jpg, in the same order
    if suffix == "png":
        data = ImageFolder(tmp_path, listed, partition=part, size=8)
    else:
        with pytest.warns(UserWarning, match="another suffix"):
            data = ImageFolder(tmp_path, listed, partition=part, size=8)
    assert list(data.names) == [f"00000{k}.png" for k in (4, 3, 2, 1)]
    np.testing.assert_array_equal(data.attributes, signs > 0)
    assert list(data.partition) == list(part)


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("corner", [True, False])
def test_tables_with_semicolons_commas_or_tabs(tmp_path: Path, separator: str, suffix: str, corner: bool) -> None:
    """As spreadsheets and R write them, with a byte order mark and quotes, or without a cell above the names."""
    signs, points, part = tables(N)
    write_images(tmp_path / "img", N)
    for name, table in {"attributes": signs, "landmarks": points, "partition": part.to_frame()}.items():
        text = table.to_csv(sep=separator, quoting=csv.QUOTE_NONNUMERIC)
        text = text if corner else text.partition(separator)[2]
        (tmp_path / f"{name}.{suffix}").write_text(text, encoding="utf-8-sig")
    if suffix == "txt" and separator == "\t":  # blanks, the official layout of .txt
        (tmp_path / "partition.txt").write_text("".join(f"{k}\t{v}\n" for k, v in part.items()))
        for name, table in {"attributes": signs, "landmarks": points}.items():
            text = table.to_csv(sep="\t")
            (tmp_path / f"{name}.txt").write_text(text if corner else text.partition("\t")[2])
    tables_of = {name: tmp_path / f"{name}.{suffix}" for name in ("attributes", "landmarks", "partition")}
    data = CelebA(tmp_path, size=16, images=tmp_path / "img", **tables_of)
    np.testing.assert_array_equal(data.attributes, signs > 0)
    np.testing.assert_array_equal(data.partition, np.array(["train", "valid", "test"])[part])
    wanted = expected_crop(points.iloc[2].to_numpy(), 16)
    assert np.abs(data[2].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 5  # JPEG


def test_a_partition_with_semicolons_and_no_names_above(tmp_path: Path) -> None:
    signs, _, part = tables(N)
    write_images(tmp_path, N)
    (tmp_path / "partition.txt").write_text("".join(f"{k};{v}\n" for k, v in part.items()))
    data = ImageFolder(tmp_path, signs, partition=tmp_path / "partition.txt", size=8)
    np.testing.assert_array_equal(data.partition, np.array(["train", "valid", "test"])[part])


@pytest.mark.parametrize("make", [official, kaggle])
def test_a_thousand_images(make, tmp_path: Path) -> None:
    data = CelebA(make(tmp_path, 1000), size=64)
    assert data.inventory.used == 1000
    for workers in (0, 2):
        loader = DataLoader(data, batch_size=100, num_workers=workers)
        seen = list(loader)
        assert [tuple(b.shape) for b in seen] == [(100, 3, 64, 64)] * 10
    np.testing.assert_array_equal(seen[-1][-1], data[999])
    loaded = data.load(workers=2, progress=False)
    np.testing.assert_array_equal(loaded.stack([0, 501, 999]), data.stack([0, 501, 999]))


def test_missing_and_extra_files_are_counted(copy: Path) -> None:
    folder = CelebA(copy).folder
    (folder / names(N)[3]).unlink()
    (folder / names(N)[5]).write_bytes(b"")  # of no bytes: as good as missing
    Image.fromarray(gradient()).save(folder / "999999.jpg")
    (folder / "Thumbs.db").write_text("no image")
    with pytest.warns(UserWarning, match=r"10 of 12 images used; 2 without a file \(000004.jpg, ...\); 1 files not"):
        data = CelebA(copy)
    assert data.inventory.missing == (names(N)[3], names(N)[5])
    assert data.inventory.extra == ("999999.jpg",)
    assert len(data) == 10
    np.testing.assert_array_equal(data.attributes, (tables(N)[0] > 0).loc[data.names])
    with pytest.raises(ValueError, match=r"Expected an image for every row, found none for 2, first 000004.jpg"):
        CelebA(copy, missing="error")


def test_rows_without_landmarks_are_counted(tmp_path: Path) -> None:
    kaggle(tmp_path, N)
    tables(N)[1].iloc[2:].to_csv(tmp_path / "list_landmarks_align_celeba.csv", index_label="image_id")
    with pytest.warns(UserWarning, match="2 without landmarks"):
        data = CelebA(tmp_path)
    assert data.inventory.unplaced == tuple(names(N)[:2])
    wanted = expected_crop(tables(N)[1].iloc[2].to_numpy(), 128)
    assert np.abs(data[0].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 5


def test_crops_that_leave_the_image(tmp_path: Path) -> None:
    kaggle(tmp_path, N)
    points = tables(N)[1]
    points.iloc[0] = [30, 111, 108, 111, 88, 135, 72, 152, 105, 152]  # starts 20 columns left of the image
    points.iloc[1] = [69, 111, 108, 111, 88, 90, 72, 152, 105, 152]  # 15 rows above
    points.iloc[2] = [300, 111, 340, 111, 88, 135, 72, 152, 105, 152]  # wholly to the right
    points.iloc[3] = [69, 111, 170, 111, 88, 135, 72, 152, 105, 152]  # ends 42 columns right of it
    points.to_csv(tmp_path / "list_landmarks_align_celeba.csv", index_label="image_id")

    clip = CelebA(tmp_path, size=64)
    assert clip.inventory.empty == (names(N)[2],)
    assert clip.inventory.clipped == tuple(names(N)[k] for k in (0, 1, 3))
    assert len(clip) == N - 1
    assert int(clip[0][1, 0, 0]) <= 3  # its first column is the image's
    assert int(clip[2][1, 0, -1]) >= 174  # and row 3's last is the image's last, 177

    skip = CelebA(tmp_path, size=64, outside="skip")
    assert skip.inventory.empty == tuple(names(N)[:4])
    assert len(skip) == N - 4

    # as the published code: image[30:187, -20:158] is empty in columns, image[-15:187] in rows
    reference = CelebA(tmp_path, size=64, outside="published")
    assert reference.inventory.empty == tuple(names(N)[:3])
    assert reference.inventory.clipped == (names(N)[3],)
    assert reference.inventory.listed == N == reference.inventory.used + 3


def test_rows_in_another_order_than_the_files(tmp_path: Path) -> None:
    kaggle(tmp_path, N)
    order = np.random.default_rng(1).permutation(N)
    _signs, points, part = tables(N)
    points.iloc[order].to_csv(tmp_path / "list_landmarks_align_celeba.csv", index_label="image_id")
    part.iloc[order[::-1]].to_csv(tmp_path / "list_eval_partition.csv", index_label="image_id")
    data = CelebA(tmp_path, size=64)
    np.testing.assert_array_equal(data.partition, np.array(["train", "valid", "test"])[part])
    wanted = expected_crop(points.iloc[4].to_numpy(), 64)
    assert np.abs(data[4].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 5


def test_parts_and_subsets_keep_rows_together(tmp_path: Path) -> None:
    data = CelebA(kaggle(tmp_path, N), size=32)
    some = data.take([7, 2])
    assert list(some.names) == [names(N)[7], names(N)[2]]
    np.testing.assert_array_equal(some[0], data[7])
    np.testing.assert_array_equal(some.attributes.iloc[1], data.attributes.iloc[2])
    hats = data.take(data.attributes["Wearing_Hat"].to_numpy())
    assert hats.attributes["Wearing_Hat"].all()
    assert len(data.without([names(N)[0]])) == N - 1
    with pytest.raises(ValueError, match="one boolean for each of 12"):
        data.take(np.ones(3, bool))
    with pytest.raises(ValueError, match=r"one of train, valid, test, found 'dev'"):
        data.part("dev")


def test_without_a_partition(tmp_path: Path) -> None:
    kaggle(tmp_path, N)
    (tmp_path / "list_eval_partition.csv").unlink()
    data = CelebA(tmp_path)
    assert data.partition is None
    with pytest.raises(ValueError, match=r"Expected a partition.*put list_eval_partition beside"):
        data.part("train")


def test_a_users_own_folder(tmp_path: Path) -> None:
    for k, (height, width) in enumerate([(40, 30), (10, 90), (64, 64)]):
        Image.fromarray(np.full((height, width, 3), 50 * k, np.uint8)).save(tmp_path / f"pic {k}.png")
    table = pd.DataFrame({"happy": [1, 0, 1]}, index=[f"pic {k}.png" for k in range(3)])
    data = ImageFolder(tmp_path, table, size=16)
    assert data.stack([0, 1, 2]).shape == (3, 3, 16, 16)
    assert data.attributes["happy"].tolist() == [True, False, True]
    np.testing.assert_array_equal(data.stack([0, 1, 2]).float().mean((1, 2, 3)), [0, 50, 100])
    table.to_csv(tmp_path / "mine.tsv", sep="\t", index_label="file")
    from_file = ImageFolder(tmp_path, tmp_path / "mine.tsv", size=16)
    pd.testing.assert_frame_equal(from_file.attributes, data.attributes, check_names=False)


def test_masks_are_cropped_as_the_images(faces: Path) -> None:
    data = CelebA(faces, size=64)
    rows = np.flatnonzero(data.attributes["Wearing_Hat"])[:20]
    masks, pixels = data.masks("Wearing_Hat", rows), data.stack(rows)
    assert masks.shape == (20, 64, 64)
    assert masks.any(axis=(1, 2)).all()
    # the mask read whole and cut by hand
    row = int(rows[0])
    whole = np.asarray(Image.open(faces / "masks" / "Wearing_Hat" / data.names[row].replace("jpg", "png")))
    points = pd.read_csv(faces / "list_landmarks_align_celeba.txt", sep=r"\s+", skiprows=2, header=None, index_col=0)
    p = points.loc[data.names[row]].to_numpy()
    cut = whole[p[5] - 105 : p[7] + 35, max(p[0] - 50, 0) : p[2] + 50]
    r = np.floor((np.arange(64) + 0.5) * cut.shape[0] / 64).astype(int)
    c = np.floor((np.arange(64) + 0.5) * cut.shape[1] / 64).astype(int)
    np.testing.assert_array_equal(masks[0], cut[np.ix_(r, c)])
    bare = np.flatnonzero(~data.attributes["Wearing_Hat"])
    assert not data.masks("Wearing_Hat", bare).any()
    loaded = data.load(progress=False).take(rows)
    np.testing.assert_array_equal(loaded.masks("Wearing_Hat"), masks)
    np.testing.assert_array_equal(loaded.stack(np.arange(20)), pixels)
    with pytest.raises(ValueError, match=r"Expected masks of 'Bald'"):
        data.masks("Bald")
