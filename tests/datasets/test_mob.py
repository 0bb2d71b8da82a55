from __future__ import annotations

import gzip
import shutil
import warnings

import numpy as np
import pytest

from stcsm.datasets import fetch_mob, mouse_olfactory_bulb

from .conftest import N_GENES, N_SPOTS

# 3 has the usual names, 9 the image's other name and the misspelt transformation; the shape of neither is known
OFFICIAL = {3: ("HE_Rep3.jpg", "Rep3_MOB_transformation.txt"), 9: ("HE_Rep9_MOB.jpg", "Rep9_MOB_transformaton.txt")}
DEAD = "http://127.0.0.1:9/"  # nothing listens there


def counts_file(replicate: int) -> str:
    return f"Rep{replicate}_MOB_count_matrix-1.tsv"


@pytest.mark.parametrize("replicate", OFFICIAL)
def test_fetches_all_official_files(server, tmp_path, replicate):
    server.hold(replicate, *OFFICIAL[replicate])
    out = tmp_path / "new" / "folder"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = fetch_mob(replicate, out, base_url=server.url, progress=False)
    assert [f.name for f in files] == [counts_file(replicate), *sorted(OFFICIAL[replicate])]
    for file in files:
        assert file.read_bytes() == (server.folder / file.name).read_bytes()
    assert sorted(out.iterdir()) == sorted(files)  # nothing else lies about


def test_loads_through_the_cache_and_asks_once(server, cache, monkeypatch, capsys):
    server.hold(3, *OFFICIAL[3])
    monkeypatch.setenv("STCSM_MOB_URL", server.url.rstrip("/"))
    first = mouse_olfactory_bulb(3, progress=False)
    assert first.shape == (N_SPOTS, N_GENES)
    np.testing.assert_allclose(first.obsm["spatial"], 40 * first.obsm["spatial_array"])
    (entry,) = first.uns["spatial"].values()
    assert entry["images"]["hires"].shape == (300, 400, 3)
    assert len(server.asked) == 3
    server.asked.clear()
    second = mouse_olfactory_bulb(3, base_url=DEAD)
    np.testing.assert_array_equal(second.X.toarray(), first.X.toarray())
    assert server.asked == []
    assert (cache / counts_file(3)).is_file()
    assert "SHA256" not in "".join(capsys.readouterr())


def test_progress_is_shown_unless_silenced(server, tmp_path, capfd):
    server.hold(3, *OFFICIAL[3])
    fetch_mob(3, tmp_path / "a", base_url=server.url, progress=False)
    assert capfd.readouterr() == ("", "")
    fetch_mob(3, tmp_path / "b", base_url=server.url)
    assert "100%" in capfd.readouterr().err


def test_counts_without_an_image(server, cache):
    server.hold(3, *OFFICIAL[3])
    (server.folder / "HE_Rep3.jpg").unlink()
    with pytest.warns(UserWarning, match=r"Fetched without HE_Rep3.jpg, from http.*: status 404"):
        adata = mouse_olfactory_bulb(3, base_url=server.url, progress=False)
    np.testing.assert_array_equal(adata.obsm["spatial"], adata.obsm["spatial_array"])  # no half of a pair is used


def test_a_web_page_in_place_of_the_image(server, cache):
    server.hold(3, *OFFICIAL[3])
    (server.folder / "HE_Rep3.jpg").write_text("<html>moved</html>")
    with pytest.warns(UserWarning, match="Fetched without HE_Rep3.jpg"):
        mouse_olfactory_bulb(3, base_url=server.url, progress=False)
    assert not (cache / "HE_Rep3.jpg").exists()


def test_a_web_page_in_place_of_the_counts(server, cache):
    server.hold(3, *OFFICIAL[3])
    (server.folder / counts_file(3)).write_text("<html>\n<body>moved</body></html>")
    with pytest.raises(ValueError, match=r"count matrix of replicate 3 at http.*found something else"):
        mouse_olfactory_bulb(3, base_url=server.url, progress=False)
    assert not cache.exists()


def test_a_connection_that_breaks_leaves_nothing(server, cache, tmp_path):
    server.hold(3, *OFFICIAL[3])
    server.cut.add(counts_file(3))
    with pytest.raises(FileNotFoundError, match="found no way to fetch it"):
        mouse_olfactory_bulb(3, base_url=server.url, progress=False)
    assert not cache.exists()
    server.cut.clear()
    mouse_olfactory_bulb(3, base_url=server.url, progress=False)  # and the next try is not hindered


def test_another_shape_is_refused(server, cache):
    server.hold(11, "HE_Rep11_MOB.jpg", "Rep11_MOB_transformation.txt")
    with pytest.raises(ValueError, match=f"262 spots x 16218 genes, found {N_SPOTS} x {N_GENES}"):
        mouse_olfactory_bulb(11, base_url=server.url, progress=False)
    assert not cache.exists()


def test_offline_says_which_file_to_put_where(cache):
    message = r"no connection\); get Rep5_MOB_count_matrix-1.tsv \(plain or .gz\) elsewhere, put it .*STCSM_DATA_DIR"
    with pytest.raises(FileNotFoundError, match=message):
        mouse_olfactory_bulb(5, base_url=DEAD, progress=False)
    assert not cache.exists()


def test_files_that_are_there_are_kept(server, tmp_path):
    server.hold(3, *OFFICIAL[3])
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / f"{counts_file(3)}.gz"
    mine.write_bytes(gzip.compress(b"\tA\n1x1\t1\n"))
    files = fetch_mob(3, tmp_path / "out", base_url=server.url, progress=False)
    assert files[0] == mine
    assert counts_file(3) not in server.asked
    assert len(files) == 3


def test_path_is_a_file_or_a_folder_and_needs_no_network(server, tmp_path, cache):
    server.hold(3, *OFFICIAL[3])
    folder = tmp_path / "mine" / "mob"
    shutil.copytree(server.folder, folder)
    for path in (folder, folder.parent, folder / counts_file(3), str(folder)):
        adata = mouse_olfactory_bulb(3, path=path, base_url=DEAD)
        assert adata.shape == (N_SPOTS, N_GENES)
        np.testing.assert_allclose(adata.obsm["spatial"], 40 * adata.obsm["spatial_array"])
    with pytest.raises(FileNotFoundError, match="not there, nor in its mob folder"):
        mouse_olfactory_bulb(4, path=folder)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        mouse_olfactory_bulb(4, path=folder / "absent")
    assert server.asked == []


def test_data_dir_comes_before_the_cache(server, tmp_path, cache, monkeypatch):
    server.hold(3, *OFFICIAL[3])
    monkeypatch.setenv("STCSM_DATA_DIR", str(tmp_path / "data"))
    mouse_olfactory_bulb(3, base_url=server.url, progress=False)  # not in the folder: fetched
    shutil.copytree(server.folder, tmp_path / "data" / "mob")
    (tmp_path / "data" / "mob" / counts_file(3)).write_text("\tA\n1x1\t1\n")
    assert mouse_olfactory_bulb(3).shape == (1, 1)


def test_a_bad_image_beside_the_counts_only_warns(server, tmp_path):
    server.hold(3, *OFFICIAL[3])
    (server.folder / OFFICIAL[3][1]).write_text("40 0 0 0 40 0 9e9 0 1")
    with pytest.warns(UserWarning, match="Read without its image: .*found 0 of 12 spots"):
        adata = mouse_olfactory_bulb(3, path=server.folder)
    np.testing.assert_array_equal(adata.obsm["spatial"], adata.obsm["spatial_array"])


@pytest.mark.parametrize("replicate", [0, 13, "1", 1.0, None])
def test_there_are_twelve(replicate):
    with pytest.raises(ValueError, match="replicate from 1 to 12"):
        mouse_olfactory_bulb(replicate)


def test_labels_beside_the_counts_from_the_core_outwards(server):
    server.hold(3, *OFFICIAL[3])
    spots = [f"{x}.1x{y}.2" for x in range(3, 7) for y in range(4, 7)]
    names = ["ONL", "GL", "MCL", "GCL"] * 3
    lines = [f"{s},{n}" for s, n in zip(spots, names, strict=True)]
    (server.folder / "Rep3_layers.csv").write_text("spot,layer\n" + "\n".join(lines))
    adata = mouse_olfactory_bulb(3, path=server.folder)
    assert adata.obs["layer"].tolist() == names
    assert adata.obs["layer"].cat.categories.tolist() == ["GCL", "MCL", "GL", "ONL"]


@pytest.mark.parametrize(
    ("replicate", "labels"), [(1, 0), pytest.param(2, 0, marks=pytest.mark.slow), (11, 5), (12, 4)]
)
def test_real_replicates(data_dir, replicate, labels):
    adata = mouse_olfactory_bulb(replicate, path=data_dir)
    assert len(adata.obs["layer"].cat.categories if "layer" in adata.obs else []) == labels
    (entry,) = adata.uns["spatial"].values()
    assert entry["metadata"]["image"] == ("tissue" if replicate == 1 else "blank")


def test_a_real_replicate_is_not_another(data_dir):
    with pytest.raises(ValueError, match=r"262 spots x 16218 genes, found 282 x 16034 .*it is another replicate"):
        mouse_olfactory_bulb(11, path=data_dir / "mob" / f"{counts_file(12)}.gz")
