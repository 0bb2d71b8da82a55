"""Lazy and backed AnnData through the whole analysis: the numbers of memory, in bounded memory."""

from __future__ import annotations

import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from scipy import sparse

import stcsm
from stcsm._lazy import column
from stcsm.models import GeneVAE
from stcsm.space import ScratchMatrix, selected_blocks, stored_blocks
from stcsm.space import _counts as space_counts
from stcsm.space import _scratch as space_scratch

FORMS = [f"{how} {form}" for how in ("lazy", "backed", "zarr") for form in ("csr", "csc", "dense")]


def make(n_rows: int = 12, n_cols: int = 20, n_genes: int = 60) -> AnnData:
    """Spots on an array; genes 0-11 mark the right half, 12-23 the left one."""
    at = np.array([(r, c) for r in range(n_rows) for c in range(n_cols)])
    right = at[:, 1] >= n_cols // 2
    mean = np.ones((len(at), n_genes))
    mean[right, :12], mean[~right, 12:24] = 5, 5
    counts = 2 * np.random.default_rng(0).poisson(mean)
    counts[0] = 0  # a spot without a count
    adata = AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.obs_names = [f"s{i}" for i in range(len(at))]
    adata.var_names = [f"Gene{i}" for i in range(n_genes)]
    adata.obs["layer"] = pd.Categorical(np.where(right, "right", "left"))
    adata.obs["array_row"], adata.obs["array_col"] = at[:, 0], at[:, 1]
    adata.var["marker"] = np.arange(n_genes) < 12
    adata.var["symbol"] = [f"SYM{i}" for i in range(n_genes)]
    adata.obsm["spatial"] = at[:, ::-1] * 50.0
    return adata


def on_disk(adata: AnnData, form: str, folder) -> AnnData:
    """The AnnData as it comes lazily from a file, backed by one, or with a zarr array as its counts."""
    how, kind = form.split()
    other = adata.copy()
    other.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray()}[kind](adata.X)
    if how == "zarr":
        other.write_zarr(folder / "a.zarr")
        stored = zarr.open(folder / "a.zarr", mode="r")["X"]
        other.X = stored if kind == "dense" else ad.io.sparse_dataset(stored)
        return other
    other.write_h5ad(folder / "a.h5ad")
    if how == "backed":
        return ad.read_h5ad(folder / "a.h5ad", backed="r")
    return ad.experimental.read_lazy(str(folder / "a.h5ad"))


def analyse(adata: AnnData) -> dict[str, np.ndarray]:
    """Every step that reads counts, labels or coordinates; what it gives."""
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, smoothing=0, n_latent=4, n_hidden=8)
    sets = stcsm.tl.match_gene_sets(adata, model, groupby="layer", n_markers=5)
    model.train(max_epochs=2, progress=False)
    stcsm.tl.concepts(adata, model, genes=sets)
    stcsm.tl.concepts(adata, model, genes="marker")
    stcsm.tl.concepts(adata, model, genes={"two": ["SYM1", "SYM30"]}, match="symbol")
    stcsm.tl.saliency(adata, model)
    stcsm.tl.concept_map(adata, model)
    stcsm.tl.mean_expression(adata)
    stcsm.tl.significance(adata, model, n_random=20)
    table = stcsm.tl.differential(adata, "layer", "right", "left", key="concept_map", n_permutations=50)
    keys = ("concept_saliency", "concept_map", "concept_expression", "concept_saliency_pval")
    return {
        "markers": np.array([sets.genes[name] for name in ("left", "right")]),
        "differential": table["difference"].sort_index().to_numpy(),
        "carriers": stcsm.tl.rank_genes_concept(adata, "left", n_random=50)["z"].sort_index().to_numpy(),
        "graph": adata.obsp["stcsm_spot_graph"].toarray(),
    } | {key: adata.obsm[key].to_numpy() for key in keys}


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What memory gives."""
    return analyse(make())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_gives_what_memory_gives(form, expected, tmp_path):
    adata = on_disk(make(), form, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    found = analyse(adata)
    for name, values in expected.items():
        if values.dtype.kind in "fi":
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_markers_and_expression_are_the_known_ones(expected):
    names = {f"Gene{i}" for i in range(12)}
    assert set(expected["markers"][1]) <= names
    assert not set(expected["markers"][0]) & names
    counts = make().X.toarray()
    np.testing.assert_allclose(
        expected["concept_expression"][:, 3], (counts[:, [1, 30]] / counts[:, [1, 30]].max(axis=0)).mean(axis=1)
    )


@pytest.mark.parametrize("form", ["lazy csr", "lazy csc", "backed csr"])
def test_bins_and_grid(form, tmp_path):
    adata, memory = on_disk(make(), form, tmp_path), make()
    bins = []
    for each in (adata, memory):
        stcsm.pp.to_grid(each, n_bins=5)
        bins.append(stcsm.pp.bin_spots(each, labels="layer"))
    np.testing.assert_array_equal(bins[0].X.toarray(), bins[1].X.toarray())
    pd.testing.assert_frame_equal(bins[0].obs, bins[1].obs)


# ---- Bounded memory

SHAPE = (3000, 80)
MOST = 20_000


@pytest.fixture
def blocks_read(monkeypatch) -> list[int]:
    """Sizes of all blocks of counts that are read, of a small bound; nothing else may read counts from a file."""
    import dask.array as da
    from anndata._core.sparse_dataset import BaseCompressedSparseDataset

    sizes: list[int] = []

    def whole(self):
        raise AssertionError("the matrix is read whole")

    compute = da.Array.compute

    def counted(self, *args, **kwargs):
        if self.ndim == 2 and self.shape[1] > 3:  # coordinates are no counts
            sizes.append(self.size)
        return compute(self, *args, **kwargs)

    read = space_counts._in_memory

    def block(part):
        sizes.append(int(np.prod(part.shape)))
        return read(part)

    for function in (stored_blocks, selected_blocks):
        monkeypatch.setattr(function, "__defaults__", (MOST,))
    monkeypatch.setattr(BaseCompressedSparseDataset, "to_memory", whole)
    monkeypatch.setattr(da.Array, "compute", counted)
    monkeypatch.setattr(space_counts, "_in_memory", block)
    return sizes


@pytest.fixture(scope="module")
def large() -> tuple[AnnData, AnnData]:
    """A larger tissue with concepts, and one with its spot graph."""
    adata = make(50, 60, SHAPE[1])
    assert adata.shape == SHAPE
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, smoothing=0, n_latent=3, n_hidden=4)
    model.train(max_epochs=1, progress=False)
    stcsm.tl.concepts(adata, model, genes={"right": ["Gene1", "Gene2"], "other": ["Gene70"]})
    joined = adata.copy()
    spot_graph(joined)
    return adata, joined


def spot_graph(adata: AnnData) -> None:
    stcsm.pp.spot_graph(adata, width=1.0, n_pcs=3, n_neighbors=10, steps=1)


@pytest.mark.parametrize("form", ["lazy csr", "lazy csc", "lazy dense", "backed csr", "backed csc", "backed dense"])
def test_no_step_reads_the_matrix_whole(form, large, tmp_path, blocks_read, monkeypatch):
    monkeypatch.setattr("stcsm.pp._spot_graph.ENOUGH_SPOTS", 100)
    monkeypatch.setattr(space_scratch, "IN_MEMORY", 100_000)
    written: list[int] = []
    append = ScratchMatrix.append

    def counted(self, row, col, block):
        written.append(block.nnz)
        append(self, row, col, block)

    monkeypatch.setattr(ScratchMatrix, "append", counted)
    adata = on_disk(large[0], form, tmp_path)
    adata.uns["stcsm"] = large[0].uns["stcsm"]
    blocks_read.clear()
    total = SHAPE[0] * SHAPE[1]
    stcsm.tl.mean_expression(adata)
    stcsm.tl.concepts(adata, groupby="layer", n_markers=5)
    stcsm.tl.rank_genes_concept(adata, "other", n_random=10)
    # A chunk that lies in the file is read whole, up to four times the bound.
    assert sum(blocks_read) >= 5 * total
    assert max(blocks_read) <= 4 * MOST < total / 2
    spot_graph(adata)
    assert max(blocks_read) <= 4 * MOST
    # Its principal components went through the scratch file, and are those of memory.
    assert sum(written) > 0.5 * total
    assert max(written) <= 4 * MOST
    found, graph = adata.obsp["stcsm_spot_graph"], large[1].obsp["stcsm_spot_graph"]
    assert abs(found - graph).mean(axis=1).max() * SHAPE[0] < 0.01


@pytest.mark.parametrize("form", ["backed csr", "backed csc"])
def test_memory_is_far_below_the_matrix(form, tmp_path, monkeypatch):
    for function in (stored_blocks, selected_blocks):
        monkeypatch.setattr(function, "__defaults__", (2**17,))
    tissue = make(40, 50, 1500)
    tissue.varm["X_stcsm"] = np.random.default_rng(0).normal(size=(1500, 3))
    tissue.uns["stcsm"] = {"setup": {"spatial_key": "spatial"}, "embedding_model": {"fingerprint": ""}}
    matrix = tissue.X.data.nbytes + tissue.X.indices.nbytes
    adata = on_disk(tissue, form, tmp_path)
    del tissue
    stcsm.tl.concepts(adata, groupby="layer")  # what is imported and compiled only once
    tracemalloc.start()
    try:
        stcsm.tl.concepts(adata, groupby="layer")
        stcsm.tl.mean_expression(adata)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert matrix > 14e6
    assert peak < matrix / 3


# ---- What is written, moved and refused


def test_lazy_results_are_written_moved_and_read_lazily_again(tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    adata = on_disk(make(), "lazy csr", tmp_path)
    maps = analyse(adata)["concept_map"]
    stcsm.tl.concept_similarity(adata)
    in_memory = adata.to_memory()
    in_memory.write_h5ad(tmp_path / "result.h5ad")
    np.testing.assert_array_equal(ad.read_h5ad(tmp_path / "result.h5ad").obsm["concept_map"], maps)
    # Without reading the counts into memory.
    adata.obs, adata.var = adata.obs.to_memory(), adata.var.to_memory()
    adata.write_zarr(tmp_path / "result.zarr")
    for path in ("result.h5ad", "result.zarr"):
        again = ad.experimental.read_lazy(str(tmp_path / path))
        for plot in (stcsm.pl.concept_map, stcsm.pl.saliency, stcsm.pl.concept_scores, stcsm.pl.concept_similarity):
            plot(again)
        table = stcsm.tl.differential(again, "layer", "right", "left", key="concept_map", n_permutations=50)
        assert sorted(table.index) == ["left", "marker", "right", "two"]
        assert np.isfinite(table["p"]).all()
        assert list(stcsm.tl.concept_table(again).index) == list(stcsm.tl.concept_table(in_memory).index)
        stcsm.tl.combine(again, "right, not left", plus=["right"], minus=["left"])
        assert "right, not left" in again.varm["concept_score"]


def test_sections_of_lazy_files_that_were_joined(tmp_path):
    make().write_h5ad(tmp_path / "a.h5ad")
    one, two = (ad.experimental.read_lazy(str(tmp_path / "a.h5ad")) for _ in range(2))
    joined = ad.concat([one, two], label="section", keys=["one", "two"], index_unique="-")
    GeneVAE.setup_anndata(joined, batch_key="section")
    model = GeneVAE(joined, smoothing=0, n_latent=3, n_hidden=4)
    assert model.section_names == ("one", "two")
    stcsm.pp.spot_graph(joined, n_pcs=3, n_neighbors=10, width=1.0, steps=1, batch_key="section")
    graph = joined.obsp["stcsm_spot_graph"].toarray()
    half = len(graph) // 2
    assert graph[:half, half:].sum() == 0
    np.testing.assert_allclose(graph[:half, :half], graph[half:, half:], atol=1e-6)


@pytest.mark.parametrize("step", [GeneVAE.setup_anndata, stcsm.pp.to_grid, stcsm.pp.spot_graph])
def test_a_view_of_a_backed_anndata_is_refused_with_the_fix(step, tmp_path):
    view = on_disk(make(), "backed csr", tmp_path)[:100]
    with pytest.raises(ValueError, match=r"Expected an AnnData that results can be written into.*to_memory\(\)"):
        step(view)
    step(view.to_memory())


def test_columns_of_any_type_are_those_of_pandas(tmp_path):
    adata = make()
    n = adata.n_obs
    adata.obs["text"] = pd.array(["a", "b"] * (n // 2), dtype=object)
    adata.obs["flag"] = pd.array([True, None] * (n // 2), dtype="boolean")
    adata.obs["whole"] = pd.array([1, None] * (n // 2), dtype="Int64")
    adata.obs["half"] = np.arange(n) / 2
    adata.write_h5ad(tmp_path / "a.h5ad")
    lazy, read = ad.experimental.read_lazy(str(tmp_path / "a.h5ad")), ad.read_h5ad(tmp_path / "a.h5ad")
    for name in read.obs:
        pd.testing.assert_series_equal(column(lazy.obs, name), read.obs[name], check_names=False)
