"""Too little memory or disk: refused before the work, and earlier results stay whole whatever fails."""

from __future__ import annotations

import errno
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
from anndata import AnnData

import stcsm
from stcsm.io import _read
from stcsm.models import GeneVAE
from stcsm.space import _memory
from stcsm.workflow import _plan, _results, _run
from stcsm.workflow._progress import RunProgress

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A small run: what it wrote, the AnnData and the model."""
    tissue, out, held = stcsm.datasets.simulated_bulb(n_spots=60, n_genes=300, seed=1), tmp_path_factory.mktemp("o"), []
    train, write = GeneVAE.train, _run.write_results
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(GeneVAE, "train", lambda model, **kwargs: train(model, max_epochs=1, **kwargs))
        patched.setattr(_run, "write_results", lambda *args: held.extend(args) or write(*args))
        analyse(tissue, out)
    return out, held[0], held[1]


def analyse(tissue, out):
    with RunProgress(quiet=True) as progress:
        _run.analyse(
            tissue.copy(), out, [{"groupby": "layer", "groups": ["Granular Cell Layer"]}], setup={}, quiet=True,
            method="saliency", encoder="auto", seed=0, n_seeds=1, null=0, progress=progress,
        )  # fmt: skip


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_too_small_a_disk_is_refused_before_the_training_with_the_arithmetic(done, tmp_path, monkeypatch):
    monkeypatch.setattr(GeneVAE, "train", None)
    monkeypatch.setattr(_results.shutil, "disk_usage", lambda _: Usage(0, 0, 10**5))
    with pytest.raises(OSError, match=r"where 0.0001 GB are free, found .* take about .* GB \(state of the training"):
        analyse(done[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_room_asked_for_is_about_what_results_take(done, tmp_path, monkeypatch):
    """The image, and what a file has beside its arrays, are left out: they do not grow with the section."""
    out, adata, model = done
    taken = sum(len(held) for name, held in contents(out).items() if name != "concept_maps.png")
    for free, fits in ((taken // 2, False), (taken * 4, True)):
        monkeypatch.setattr(_results.shutil, "disk_usage", lambda _, free=free: Usage(0, 0, free))
        with nullcontext() if fits else pytest.raises(OSError, match="Expected room"):
            _results.require_room(adata, model, 1, tmp_path)


def test_too_little_memory_for_the_maps_is_refused_before_the_training(done, tmp_path, monkeypatch):
    monkeypatch.setattr(GeneVAE, "train", None)
    build = GeneVAE.__init__

    def then_none_is_left(model, *args, **kwargs):
        build(model, *args, **kwargs)
        monkeypatch.setattr(_memory, "available_memory", lambda: 1000)

    monkeypatch.setattr(GeneVAE, "__init__", then_none_is_left)
    with pytest.raises(MemoryError, match="5 maps of 1 concepts at 60 spots, 8 bytes each"):
        analyse(done[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def free(monkeypatch):
    """Set the free memory."""

    def to(n_bytes):
        for module in (_memory, _read):
            monkeypatch.setattr(module, "available_memory", lambda: n_bytes)

    return to


def test_files_larger_than_memory_are_refused_before_they_are_read(done, tmp_path, free):
    """Counts are needed twice, by spot and by gene, however well they are compressed in the files."""
    path, x = tmp_path / "tissue.h5ad", done[1].X
    done[1].write_h5ad(path, compression="gzip")
    x_bytes = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    for n_bytes, fits in ((4 * x_bytes, False), (100 * x_bytes, True)):
        free(n_bytes)
        with nullcontext() if fits else pytest.raises(MemoryError, match=r"of arrays in .*tissue.h5ad.* once more"):
            _plan.require_reading_memory([path, path, tmp_path / "absent", tmp_path])


def test_counts_that_stay_in_their_file_need_no_memory(done, tmp_path, free):
    path, dense = tmp_path / "tissue.h5ad", np.ones((1000, 300), dtype=np.float32)
    tissue = AnnData(dense)
    tissue.raw = tissue
    tissue.write_h5ad(path)
    free(dense.nbytes)
    _plan.require_reading_memory([path])
    tissue.layers["more"] = dense
    tissue.write_h5ad(path)
    with pytest.raises(MemoryError, match="without the layers"):
        _plan.require_reading_memory([path])


def test_files_that_are_not_read_whole_are_not_refused(tmp_path, free):
    """A .gef holds an array of all places, most of them empty."""
    path = tmp_path / "section.gef"
    with h5py.File(path, "w") as file:
        file.create_dataset("wholeExp/bin1", shape=(20_000, 20_000), dtype="u4", chunks=(1000, 1000))
    free(10**6)
    _plan.require_reading_memory([path])


def test_a_model_larger_than_memory_is_refused_before_it_is_built(done, monkeypatch):
    monkeypatch.setattr(_memory, "available_memory", lambda: 1000)
    monkeypatch.setattr(GeneVAE, "_build_module", None)
    with pytest.raises(MemoryError, match="2 members x 60 spots x 258 weights"):
        GeneVAE(done[1], n_seeds=2)


def test_limits_of_the_process_and_of_its_control_groups_are_those_of_memory(tmp_path, monkeypatch):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 800 kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("4:cpu:/x\n0::/job/step\n")
    monkeypatch.setattr(_memory, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "groups")
    assert _memory.available_memory() == 800 * 1024
    for group, limit, used, cached in (("job/step", "max", 50_000, 0), ("job", "200000", 60_000, 10_000)):
        folder = tmp_path / "groups" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\n")
    assert _memory.available_memory() == 150_000
    (tmp_path / "proc" / "self" / "status").write_text("Name: x\nVmSize: 100 kB\nVmRSS: 70 kB\n")
    resource = pytest.importorskip("resource")
    limits = {resource.RLIMIT_AS: 120 * 1024}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits.get(kind, resource.RLIM_INFINITY),) * 2)
    assert _memory.available_memory() == 20 * 1024
    assert _memory.resident_memory() == 70 * 1024


def test_what_a_killed_process_left_is_gone_after_the_next_run(done):
    out, adata, model = done
    before = set(contents(out))
    (out / _results.SCRATCH / "old").mkdir(parents=True)
    (out / _results.SCRATCH / "result.h5ad").write_bytes(b"half")
    _results.write_results(adata, model, out, dict)
    assert set(contents(out)) == before
    assert not (out / _results.SCRATCH).exists()


STEPS = ("_write_csv", "write_trust", "_draw", "AnnData.write_h5ad", "GeneVAE.save", "json.dumps", "replace_all")


@pytest.mark.parametrize("step", STEPS)
def test_a_disk_that_fills_up_at_any_file_leaves_earlier_results_as_they_were(done, monkeypatch, step):
    out, adata, model = done
    before = contents(out)
    *owner, name = step.split(".")

    def full(*args, **kwargs):
        for path in args:
            if isinstance(path, Path) and path.parent.is_dir() and path.suffix:
                path.write_bytes(b"half")  # what a full disk leaves
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(getattr(_results, owner[0]) if owner else _results, name, full)
    with pytest.raises(OSError, match="No space left"):
        _results.write_results(adata, model, out, dict)
    assert contents(out) == before
