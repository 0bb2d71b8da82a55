from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from stcsm.io import read_st

MATRIX = np.array([[58.0, 0, 0], [0, 60, 0], [-58, -60, 1]])


@pytest.fixture
def matrix_file(write):
    return write("58 0 0 0 60 0 -58 -60 1\n", "transformation.txt")


@pytest.fixture
def image_file(tmp_path):
    """An image file of the given size (width, height): red left half, white right half."""

    def _write(width=1000, height=600, name="he.png", mode="RGB"):
        array = np.full((height, width, 3), 255, np.uint8)
        array[:, : width // 2] = [200, 0, 0]
        image = Image.fromarray(array)
        (image.quantize(2) if mode == "P" else image.convert(mode)).save(tmp_path / name)
        return tmp_path / name

    return _write


def entry(adata):
    (value,) = adata.uns["spatial"].values()
    return value


def test_pixels_follow_row_vectors(st_file, matrix_file):
    adata = read_st(st_file(), transformation=matrix_file)
    # by hand: (16.92 - 1) * 58, (9.015 - 1) * 60
    np.testing.assert_allclose(adata.obsm["spatial"][0], [923.36, 480.9])
    np.testing.assert_array_equal(adata.obsm["spatial_array"][0], [16.92, 9.015])
    assert adata.obs["array_row"].iloc[0] == 9.015


def test_rotation_and_shear_are_applied_from_the_left(st_file):
    matrix = np.array([[0.0, 2, 0], [-3, 1, 0], [100, 200, 1]])
    adata = read_st(st_file(), transformation=matrix)
    x, y = 17.0, 10.0
    np.testing.assert_allclose(adata.obsm["spatial"][1], [-3 * y + 100, 2 * x + y + 200])


def test_spots_are_half_as_wide_as_they_are_apart(st_file, matrix_file):
    scale = entry(read_st(st_file(), transformation=matrix_file))["scalefactors"]
    assert scale["spot_diameter_fullres"] == pytest.approx(0.5 * np.sqrt(58 * 60))


def test_image_at_full_resolution(st_file, matrix_file, image_file):
    with pytest.warns(UserWarning, match="Found only 2 of 3 spots on the image"):
        adata = read_st(st_file(), image=image_file(), transformation=matrix_file)
    stored = entry(adata)
    assert stored["images"]["hires"].shape == (600, 1000, 3)
    assert stored["scalefactors"]["tissue_hires_scalef"] == 1.0
    assert stored["metadata"]["image"] == "tissue"


def test_reduced_image_scales_by_image_shape(st_file, matrix_file, image_file):
    with pytest.warns(UserWarning, match="2 of 3"):
        adata = read_st(st_file(), image=image_file(250, 150), transformation=matrix_file, image_shape=(1000, 600))
    assert entry(adata)["scalefactors"]["tissue_hires_scalef"] == pytest.approx(0.25)
    np.testing.assert_allclose(adata.obsm["spatial"][0], [923.36, 480.9])  # still full-resolution pixels


@pytest.mark.parametrize("name", ["he.jpg", "he.png"])
def test_large_images_are_stored_reduced(st_file, matrix_file, image_file, name):
    adata = read_st(st_file({4: "3x4\t1\t1\t1\t1"}), image=image_file(5000, 3000, name), transformation=matrix_file)
    stored = entry(adata)
    hires, scale = stored["images"]["hires"], stored["scalefactors"]["tissue_hires_scalef"]
    assert hires.shape == (1200, 2000, 3)
    assert scale == pytest.approx(0.4)
    # the border between red and white lies where it was
    assert hires[600, int(2450 * scale)].tolist() == pytest.approx([200, 0, 0], abs=3)
    assert hires[600, int(2550 * scale)].tolist() == pytest.approx([255, 255, 255], abs=3)


def test_arrays_and_odd_modes(st_file, matrix_file, image_file):
    spots = {4: "3x4\t1\t1\t1\t1"}
    rgb = read_st(st_file(spots), image=image_file(), transformation=matrix_file)
    array = np.asarray(Image.open(image_file()))
    for image in (array, array / 255.0, image_file(mode="RGBA", name="a.png"), image_file(mode="P", name="p.png")):
        adata = read_st(st_file(spots), image=image, transformation=MATRIX)
        np.testing.assert_array_equal(entry(adata)["images"]["hires"], entry(rgb)["images"]["hires"])
    grey = read_st(st_file(spots), image=image_file(mode="L", name="l.png"), transformation=MATRIX)
    assert entry(grey)["images"]["hires"].shape == (600, 1000, 3)


def test_transparent_is_white(st_file, matrix_file, tmp_path):
    Image.new("RGBA", (1000, 600), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    adata = read_st(st_file({4: "3x4\t1\t1\t1\t1"}), image=tmp_path / "clear.png", transformation=matrix_file)
    assert (entry(adata)["images"]["hires"] == 255).all()


def test_the_users_array_is_not_changed_or_shared(st_file):
    array = np.random.default_rng(0).integers(0, 255, (1200, 2200, 3), dtype=np.uint8)
    before = array.copy()
    adata = read_st(st_file({4: "3x4\t1\t1\t1\t1"}), image=array, transformation=MATRIX)
    np.testing.assert_array_equal(array, before)
    assert not np.shares_memory(entry(adata)["images"]["hires"], array)


BAD_MATRICES = {
    "eight numbers": ("1 0 0 0 1 0 0 0", "9 finite numbers, found 8"),
    "text": ("1 0 0 0 one 0 0 0 1", "Expected 9 numbers, found '1 0 0 0 one"),
    "nan": ("1 0 0 0 nan 0 0 0 1", "9 finite numbers"),
    "transposed": ("58 0 -58 0 58 -58 0 0 1", "transposed"),
    "projective": ("1 0 0.1 0 1 0 5 5 1", r"last column is 0 0 1, found"),
    "onto a line": ("1 1 0 1 1 0 0 0 1", "onto a line"),
    "empty": ("", "empty file"),
}


@pytest.mark.parametrize(("text", "message"), BAD_MATRICES.values(), ids=BAD_MATRICES.keys())
def test_bad_transformations(st_file, write, text, message):
    with pytest.raises(ValueError, match=message):
        read_st(st_file(), transformation=write(text, "t.txt"))


def test_bad_images(st_file, write, image_file, matrix_file, tmp_path):
    def reading(image=None, **kwargs):
        return read_st(st_file(), image=image, transformation=kwargs.pop("transformation", matrix_file), **kwargs)

    with pytest.raises(ValueError, match="transformation with the image, found none"):
        read_st(st_file(), image=image_file())
    with pytest.raises(FileNotFoundError, match="Expected an image, found nothing"):
        reading(tmp_path / "absent.jpg")
    with pytest.raises(ValueError, match="does not open as one"):
        reading(write("not an image", "he2.jpg"))
    cut = image_file(name="whole.jpg").read_bytes()
    with pytest.raises(ValueError, match="does not open as one"):
        reading(write(cut[: len(cut) // 2], "cut.jpg"))
    with pytest.raises(ValueError, match=r"give \(width, height\)"):
        reading(image_file(), image_shape=(600, 1000))
    with pytest.raises(ValueError, match="proportions of image_shape, 900 x 900"):
        reading(image_file(), image_shape=(900, 900))
    for shape in ((0, 5), (5,), (5, 5, 3)):
        with pytest.raises(ValueError, match="image_shape as"):
            reading(image_file(), image_shape=shape)
    with pytest.raises(ValueError, match="found 0 of 3 spots on the image"):
        reading(image_file(), transformation=[*MATRIX[:2], [1e6, 0, 1]])
    with pytest.raises(ValueError, match=r"shape \(height, width, 3\)"):
        reading(np.zeros((5, 5, 7), np.uint8))
    with pytest.raises(ValueError, match="floats from 0 to 1, found float64"):
        reading(np.full((600, 1000, 3), 128.0))
    Image.new("I;16", (1000, 600)).save(tmp_path / "deep.tif")
    with pytest.raises(ValueError, match="8 bits a channel"):
        reading(tmp_path / "deep.tif")


@pytest.mark.parametrize("with_image", [True, False])
def test_squidpy_draws_it_unasked(st_file, matrix_file, image_file, with_image):
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import squidpy as sq

    kwargs = {"image": image_file(), "transformation": matrix_file} if with_image else {}
    adata = read_st(st_file({4: "3x4\t1\t1\t1\t1"}), **kwargs)
    axes = sq.pl.spatial_scatter(adata, color="Kctd12", return_ax=True)
    (circles,) = [c for c in axes.collections if len(c.get_paths()) == adata.n_obs]
    scale = entry(adata)["scalefactors"]
    box = circles.get_paths()[0].get_extents()
    assert box.width == pytest.approx(scale["spot_diameter_fullres"] * scale["tissue_hires_scalef"], rel=0.01)
    plt.close("all")
