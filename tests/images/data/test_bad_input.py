"""Damaged files, other formats, tables with mistakes: each error names what was found and the fix."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stcsm.images import Architecture, CelebA, ImageArray, ImageError, ImageFolder, ImageVAE, encode

from .celeba_copy import gradient, kaggle, names, official, tables, write_text

N = 6
SMALL = Architecture(8, (4, 6), (3, 4), 3, 8, 5, log_var_start=-2.0)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return kaggle(tmp_path, N)


def images_of(root: Path) -> Path:
    return root / "img_align_celeba" / "img_align_celeba"


def attributes_csv(root: Path, table: pd.DataFrame) -> None:
    table.to_csv(root / "list_attr_celeba.csv", index_label="image_id")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("damage", ["cut short", "no image", "one byte off in the header"])
@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_jpeg_is_found_before_training(copy: Path, damage: str, workers: int, tmp_path: Path) -> None:
    bad = images_of(copy) / names(N)[2]
    content = bytearray(bad.read_bytes())
    if damage == "cut short":
        content = content[: len(content) // 2]
    elif damage == "no image":
        content = bytearray(b"<html>not found</html>")
    else:
        content[0] = 0
    bad.write_bytes(content)
    data = CelebA(copy, size=8)
    assert list(data.unreadable(workers, progress=False)) == [names(N)[2]]
    message = r"Expected 6 images that can be read, found 1 that cannot, first 000003.jpg: .*data.without\("
    with pytest.raises(ImageError, match=message):
        ImageVAE(SMALL).fit(data, tmp_path / "run", batch_size=2, workers=workers, progress=False)
    assert not (tmp_path / "run").exists()
    for work in (
        lambda: encode(ImageVAE(SMALL), data, workers=workers, progress=False),
        lambda: data.load(workers=workers, progress=False),
    ):
        with pytest.raises(ImageError, match=r"^Expected an image in .*000003.jpg, found a damaged file"):
            work()
    good = data.without(data.unreadable(progress=False))
    assert len(good.load(progress=False)) == N - 1


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    shade = gradient()[..., 0]
    half = np.dstack([np.full((20, 20, 3), 200, np.uint8), np.tile(np.uint8([0, 255]), (20, 10))])
    cases = {
        "grey.jpg": Image.fromarray(shade),
        "grey alpha.png": Image.fromarray(np.dstack([shade, np.full_like(shade, 255)]), "LA"),
        "palette.png": Image.fromarray(gradient()).quantize(64),
        "bits.png": Image.fromarray(shade > 100),
        "cmyk.jpg": Image.fromarray(gradient()).convert("CMYK"),
        "half.png": Image.fromarray(half, "RGBA"),
    }
    for name, image in cases.items():
        image.save(tmp_path / name)
    data = ImageFolder(tmp_path, pd.DataFrame({"a": 1}, index=list(cases)), size=20, resample="nearest")
    got = dict(zip(cases, data.stack(np.arange(len(cases))).numpy(), strict=True))
    for name in ("grey.jpg", "grey alpha.png"):
        rows = shade[np.floor((np.arange(20) + 0.5) * 218 / 20).astype(int), 0].astype(int)
        assert np.abs(got[name][:, :, 3].astype(int) - rows).max() <= 3
        assert (got[name] == got[name][:1]).all()  # the three channels alike
    assert set(np.unique(got["bits.png"])) == {0, 255}
    # what is transparent is white, not the colour that happens to lie below
    np.testing.assert_array_equal(got["half.png"][0, 0], np.tile([255, 200], 10))


def test_sixteen_bits_a_channel_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(tmp_path / "deep.png")
    data = ImageFolder(tmp_path, pd.DataFrame({"a": [1]}, index=["deep.png"]), size=8)
    with pytest.raises(ImageError, match=r"Expected 8 bits per channel in .*deep.png, found mode 'I;16'; convert"):
        data[0]


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    Image.fromarray(np.repeat(np.uint8([[[255] * 3], [[0] * 3]]), 2, axis=1)).resize((40, 40), 0).save(
        tmp_path / "turned.jpg", exif=exif
    )
    data = ImageFolder(tmp_path, pd.DataFrame({"a": [1]}, index=["turned.jpg"]), size=4)
    shown = data[0][0].numpy()
    assert shown[:, 0].max() < 20  # the white upper half is now the right half
    assert shown[:, 3].min() > 235


def test_images_of_another_size_than_the_landmarks_count(copy: Path) -> None:
    Image.fromarray(gradient()).resize((500, 600)).save(images_of(copy) / names(N)[1])
    data = CelebA(copy, size=8)
    with pytest.raises(ImageError, match=r"218 x 178 pixels .*000002.jpg.*found 600 x 500; use the aligned images"):
        data[1]
    assert CelebA(copy, size=8, crop=False)[1].shape == (3, 8, 8)
    # a whole copy of another size, such as the images in the wild, is refused at once
    for name in names(N):
        Image.fromarray(gradient()).resize((500, 600)).save(images_of(copy) / name)
    with pytest.raises(ValueError, match=r"218 x 178.*found 600 x 500"):
        CelebA(copy, size=8)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 1), (False, True)])
def test_values_that_are_taken(copy: Path, low: object, high: object) -> None:
    wanted = tables(N)[0] > 0
    attributes_csv(copy, wanted.map(lambda v: high if v else low))
    np.testing.assert_array_equal(CelebA(copy, size=8).attributes, wanted)


@pytest.mark.parametrize("wrong", [2, -2, 0.5, "yes", None])
def test_values_that_are_refused(copy: Path, wrong: object) -> None:
    signs = tables(N)[0].astype(object)
    signs.iloc[3, 15] = wrong
    attributes_csv(copy, signs)
    with pytest.raises(ValueError, match=r"Expected .*found .*'Eyeglasses' of 000004.jpg.*"):
        CelebA(copy, size=8)


def test_minus_one_and_zero_in_one_column_are_refused(copy: Path) -> None:
    signs = tables(N)[0]
    signs.iloc[:3, 15] = [-1, 0, 1]
    attributes_csv(copy, signs)
    with pytest.raises(ValueError, match=r"either -1/1 or 0/1 .*'Eyeglasses'; 0 may mean unknown"):
        CelebA(copy, size=8)


@pytest.mark.parametrize("table", ["list_attr_celeba", "list_landmarks_align_celeba", "list_eval_partition"])
def test_duplicate_and_missing_names(copy: Path, table: str) -> None:
    frame = pd.read_csv(copy / f"{table}.csv", dtype={"image_id": object})
    twice = frame.copy()
    twice.loc[2, "image_id"] = twice.loc[1, "image_id"]
    twice.to_csv(copy / f"{table}.csv", index=False)
    with pytest.raises(ValueError, match=rf"distinct image names in .*{table}.csv, found 000002.jpg twice; .*"):
        CelebA(copy, size=8)
    frame.loc[2, "image_id"] = np.nan
    frame.to_csv(copy / f"{table}.csv", index=False)
    with pytest.raises(
        ValueError, match=rf"Expected a name in every row of .*{table}.csv, found row 3 without one; .*"
    ):
        CelebA(copy, size=8)


def test_partition_of_other_numbers(copy: Path) -> None:
    tables(N)[2].replace(2, 3).to_csv(copy / "list_eval_partition.csv", index_label="image_id")
    with pytest.raises(
        ValueError, match=r"Expected 0 \(train\), 1 \(validation\) or 2 \(test\).*found 3 for 000005.jpg"
    ):
        CelebA(copy, size=8)


def test_landmarks_with_a_column_missing_or_no_number(copy: Path) -> None:
    points = tables(N)[1]
    points.drop(columns="nose_y").to_csv(copy / "list_landmarks_align_celeba.csv", index_label="image_id")
    with pytest.raises(ValueError, match=r"found none called 'nose_y'"):
        CelebA(copy, size=8)
    points = points.astype(object)
    points.iloc[1, 4] = "?"
    points.to_csv(copy / "list_landmarks_align_celeba.csv", index_label="image_id")
    with pytest.raises(ValueError, match=r"integers .*found '\?' for 'nose_x' of 000002.jpg"):
        CelebA(copy, size=8)


def test_text_tables_that_are_cut_short_or_uneven(tmp_path: Path) -> None:
    official(tmp_path, N)
    path = tmp_path / "Anno" / "list_attr_celeba.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(ValueError, match=r"Expected 6 images in .*celeba.txt.*, found 4; is the file complete"):
        CelebA(tmp_path, size=8)
    path.write_text("\n".join([*lines[:-1], lines[-1][:-4]]) + "\n")  # a value less in the last line
    with pytest.raises(ValueError, match=r"Expected .*found"):
        CelebA(tmp_path, size=8)
    path.write_text("\n".join([*lines[:3], lines[3] + " 1", *lines[4:]]) + "\n")  # one more
    with pytest.raises(ValueError, match=r"Expected 41 entries per line .*found"):
        CelebA(tmp_path, size=8)
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ValueError, match=r"Expected .*found"):
        CelebA(tmp_path, size=8)
    path.write_text("")
    with pytest.raises(ValueError, match=r"Expected lines such as .*found"):
        CelebA(tmp_path, size=8)


def test_names_that_do_not_meet(copy: Path) -> None:
    signs = tables(N)[0]
    others = [f"face{name}" for name in signs.index]
    attributes_csv(copy, signs.set_axis(others))
    with pytest.raises(ValueError, match=r"such as face000001.jpg, found others, such as 000001.jpg; .*"):
        CelebA(copy, size=8)
    attributes_csv(copy, signs)
    tables(N)[1].set_axis(others).to_csv(copy / "list_landmarks_align_celeba.csv", index_label="image_id")
    with pytest.raises(ValueError, match=r"landmarks for names such as 000001.jpg, found names such as face000001.jpg"):
        CelebA(copy, size=8)


def test_a_name_that_may_be_either_of_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpeg", "b.png"):
        Image.fromarray(gradient()).convert("RGB").save(tmp_path / name)
    with pytest.raises(ValueError, match=r"Expected one file for 'a', found a.jpeg, a.png .*suffixes"):
        ImageFolder(tmp_path, pd.DataFrame({"x": [1, 0]}, index=["a.jpg", "b.jpg"]), size=8)
    with pytest.raises(ValueError, match=r"Expected one name for 'b', found b.jpg, b .*suffixes"):
        ImageFolder(tmp_path, pd.DataFrame({"x": [1, 0, 0]}, index=["a.png", "b.jpg", "b"]), size=8)


def test_names_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(gradient()).save(tmp_path / "secret.png")
    Image.fromarray(gradient()).save(tmp_path / "in" / "a.png")
    table = pd.DataFrame({"a": [1, 0]}, index=["../secret.png", "a.png"])
    with pytest.warns(UserWarning, match="1 without a file"):
        data = ImageFolder(tmp_path / "in", table, size=8)
    assert list(data.names) == ["a.png"]


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="found no folder"):
        CelebA(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"Expected list_attr_celeba.txt or .csv .*found neither; put it there"):
        CelebA(tmp_path)
    write_text(tmp_path / "list_attr_celeba.txt", tables(N)[0])
    (tmp_path / "img_align_celeba.zip").write_bytes(b"PK")
    with pytest.raises(FileNotFoundError, match=r"Expected images .*found none; unpack .*img_align_celeba.zip"):
        CelebA(tmp_path)
    Image.fromarray(gradient()).save(tmp_path / names(N)[0])
    with pytest.raises(FileNotFoundError, match=r"to crop by, found neither; give landmarks= its path, or crop=False"):
        CelebA(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five files are missing
        assert len(CelebA(tmp_path, crop=False, size=8)) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 0}, "a size of at least one pixel, found 0"),
        ({"resample": "cubic"}, "resample to be one of nearest, bilinear, found 'cubic'"),
        ({"outside": "pad"}, "outside to be one of clip, skip, published, found 'pad'"),
        ({"missing": "ignore"}, "missing='warn' or 'error', found 'ignore'"),
    ],
)
def test_settings_out_of_range(copy: Path, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected {message}"):
        CelebA(copy, **wrong)


def test_an_attribute_that_no_image_has_is_kept_and_a_part_without_images_refused(copy: Path) -> None:
    signs = tables(N)[0]
    signs["Bald"] = -1
    attributes_csv(copy, signs)
    data = CelebA(copy, size=8)
    assert not data.attributes["Bald"].any()
    nobody = data.take(data.attributes["Bald"].to_numpy())
    assert len(nobody) == 0
    assert nobody.stack([]).shape == (0, 3, 8, 8)
    assert encode(ImageVAE(SMALL), nobody, progress=False).shape == (0, 5)
    with pytest.raises(ValueError, match="Expected images in data, found none"):
        ImageVAE(SMALL).fit(nobody, batch_size=2)
    with pytest.raises(ValueError, match=r"Expected images in the part 'test', found none among 4"):
        data.take([0, 1, 2, 3]).part("test")


def test_pixels_in_memory_that_do_not_fit() -> None:
    table = pd.DataFrame({"a": [1, 0]})
    for pixels, message in [
        (np.zeros((2, 8, 9, 3)), "square images"),
        (np.full((2, 8, 8, 3), 255.0), "uint8 pixels, or floats between 0 and 1"),
        (np.full((2, 8, 8, 3), np.nan), "uint8 pixels, or floats between 0 and 1"),
        (np.zeros((3, 8, 8, 3)), "attributes .* of 3 images, found 2"),
    ]:
        with pytest.raises(ValueError, match=f"Expected {message}"):
            ImageArray(pixels, table)
    grey = ImageArray(np.full((2, 8, 8), 0.2), table)
    assert (grey.stack([0, 1]) == 51).all()
