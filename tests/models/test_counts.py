"""Counts gene by gene: the same numbers from memory, from files and from a scratch file, in bounded memory."""

from __future__ import annotations

import tracemalloc

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stcsm.models import GeneVAE, _counts
from stcsm.models._counts import FileGenes, GeneReader, MemoryGenes, ScratchGenes, open_genes
from stcsm.space import check_counts, stored_blocks

FORMS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}


@pytest.fixture
def x():
    """50 spots x 23 genes; one spot and one gene without a count."""
    rng = np.random.default_rng(1)
    x = rng.poisson(0.7, size=(50, 23)).astype(np.float32)
    x[7] = 0
    x[:, 3] = 0
    return x


@pytest.fixture
def small_pieces(monkeypatch):
    """Nothing fits into memory, and a block holds few values: every seam is met."""
    monkeypatch.setattr(_counts, "IN_MEMORY", 0)
    monkeypatch.setattr(_counts, "PIECE", 60)
    monkeypatch.setattr(stored_blocks, "__defaults__", (200,))


def on_disk(x, form, where, tmp_path, **kwargs):
    """The matrix as it comes out of a backed h5ad, a zarr store, or lazily."""
    adata = AnnData(FORMS[form](x))
    if where == "h5ad":
        adata.write_h5ad(tmp_path / "a.h5ad", **kwargs)
        return ad.read_h5ad(tmp_path / "a.h5ad", backed="r").X
    zarr = pytest.importorskip("zarr")
    adata.write_zarr(tmp_path / "a.zarr", **kwargs)
    if where == "zarr":
        group = zarr.open(str(tmp_path / "a.zarr"), mode="r")
        return group["X"] if form == "dense" else ad.io.sparse_dataset(group["X"])
    pytest.importorskip("dask")
    pytest.importorskip("xarray")
    return ad.experimental.read_lazy(str(tmp_path / "a.zarr")).X


def same_numbers(reader, x):
    seen = np.flatnonzero(x.sum(axis=1) > 0)
    order = np.array([5, 3, 22, 0, 1, 2, 5])
    np.testing.assert_array_equal(reader.profiles(order), x[seen][:, order].T)
    np.testing.assert_array_equal(reader.spots, seen)
    np.testing.assert_array_equal(reader.gene_totals, x.sum(axis=0))
    np.testing.assert_array_equal(reader.gene_checks, GeneReader.open(x).gene_checks)
    np.testing.assert_allclose(reader.depth, x[seen].sum(axis=1) / x.sum(), rtol=1e-6)
    genes = np.array([1, 2, 9])
    left, taken = reader.thinned(genes, 0.4, seed=3)
    expected = GeneReader.open(x).thinned(genes, 0.4, seed=3)
    every = np.arange(23)
    for part, other in zip((left, taken), expected, strict=True):
        np.testing.assert_array_equal(part.profiles(every), other.profiles(every))
        np.testing.assert_array_equal(part.gene_totals, other.gene_totals)
    np.testing.assert_array_equal(left.profiles(genes) + taken.profiles(genes), x[seen][:, genes].T)
    assert not left.profiles(np.array([4])).any()


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("where", ["h5ad", "zarr", "lazy"])
def test_a_file_gives_the_numbers_of_memory(x, form, where, tmp_path, small_pieces, caplog):
    matrix = on_disk(x, form, where, tmp_path)
    reader = GeneReader.open(matrix)
    in_place = form == "csc" and where != "lazy"
    assert isinstance(reader._store, FileGenes if in_place else ScratchGenes)
    assert in_place == ("scratch file" not in caplog.text)
    same_numbers(reader, x)


@pytest.mark.parametrize("form", list(FORMS))
def test_what_fits_is_read_into_memory(x, form, tmp_path):
    reader = GeneReader.open(on_disk(x, form, "h5ad", tmp_path))
    assert isinstance(reader._store, MemoryGenes)
    same_numbers(reader, x)


def test_compressed_files_and_other_chunks(x, tmp_path, small_pieces):
    same_numbers(GeneReader.open(on_disk(x, "csr", "h5ad", tmp_path, compression="gzip")), x)
    zarr = pytest.importorskip("zarr")
    tall = zarr.create_array(str(tmp_path / "tall.zarr"), shape=x.shape, chunks=(50, 4), dtype=x.dtype)
    tall[:] = x
    same_numbers(GeneReader.open(tall), x)


def test_explicit_zeros_and_unsorted_rows_change_nothing(x):
    messy = sparse.csc_matrix(x)
    messy.data[:4] = 0
    plain = messy.toarray()
    for g in range(23):
        own = slice(messy.indptr[g], messy.indptr[g + 1])
        messy.indices[own] = messy.indices[own][::-1].copy()
        messy.data[own] = messy.data[own][::-1].copy()
    messy.has_sorted_indices = False
    same_numbers(GeneReader.open(messy), plain)


def test_later_changes_do_not_reach_the_reader(x):
    for form in (*FORMS.values(), np.asfortranarray):
        given = form(x.copy())
        reader = GeneReader.open(given)
        values = given if isinstance(given, np.ndarray) else given.data
        values[:] = 99
        same_numbers(reader, x)


def test_memory_too_small_for_a_copy_means_a_scratch_file(x, monkeypatch):
    monkeypatch.setattr(_counts, "available_memory", lambda: 1)
    for form in FORMS.values():
        store = open_genes(form(x))
        assert isinstance(store, ScratchGenes)
    same_numbers(GeneReader.open(sparse.csr_matrix(x)), x)


def test_a_closed_file_is_named(x, tmp_path, small_pieces):
    adata = AnnData(sparse.csc_matrix(x))
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    reader = GeneReader.open(backed.X)
    backed.file.close()
    with pytest.raises(OSError, match="keep it open"):
        reader.profiles(np.array([1]))


@pytest.mark.parametrize("form", list(FORMS))
def test_memory_is_bounded_by_blocks_not_by_the_matrix(form, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    counts = sparse.random_array((20_000, 1000), density=0.05, format="csr", rng=rng, dtype=np.float32)
    counts.data[:] = rng.integers(1, 9, counts.nnz)
    matrix = on_disk(counts.toarray(), form, "h5ad", tmp_path)
    monkeypatch.setattr(_counts, "IN_MEMORY", 2**20)
    monkeypatch.setattr(_counts, "PIECE", 2**16)
    monkeypatch.setattr(stored_blocks, "__defaults__", (2**18,))
    monkeypatch.setattr(_counts, "VALUES", 2**18)
    tracemalloc.start()
    check_counts(matrix, range(20_000), range(1000))
    reader = GeneReader.open(matrix)
    some = reader.profiles(np.arange(32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The counts are 8 MB as CSC and 80 MB when dense; a profile is 80 kB.
    assert peak < 7.5e6
    np.testing.assert_array_equal(some.T, counts[reader.spots][:, :32].toarray())


def train(adata, **kwargs):
    model = GeneVAE(adata, n_latent=3, n_hidden=6, min_counts=1)
    model.train(max_epochs=2, progress=False, **kwargs)
    return model.get_latent_representation()


def test_a_model_from_files_is_the_model_from_memory(x, tmp_path, small_pieces):
    adata = AnnData(sparse.csr_matrix(x))
    adata.obsm["spatial"] = np.random.default_rng(0).uniform(size=(50, 2))
    GeneVAE.setup_anndata(adata)
    expected = train(adata)
    held = train(adata, early_stopping=True)
    adata.layers["counts"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    np.testing.assert_array_equal(train(backed), expected)
    np.testing.assert_array_equal(train(backed, early_stopping=True), held)
    # A layer of a backed file.
    del backed.uns["stcsm"]
    GeneVAE.setup_anndata(backed, layer="counts")
    np.testing.assert_array_equal(train(backed), expected)
    backed.file.close()
    # A zarr store, its counts left on disk.
    zarr = pytest.importorskip("zarr")
    adata.write_zarr(tmp_path / "a.zarr")
    group = zarr.open(str(tmp_path / "a.zarr"), mode="r")
    lazy = AnnData(
        X=ad.io.sparse_dataset(group["X"]),
        obs=ad.io.read_elem(group["obs"]),
        var=ad.io.read_elem(group["var"]),
        obsm=ad.io.read_elem(group["obsm"]),
    )
    GeneVAE.setup_anndata(lazy)
    np.testing.assert_array_equal(train(lazy), expected)
