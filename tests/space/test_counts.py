"""What counts are, that unchanged ones are read once, and what thinning and normalising do to them."""

from __future__ import annotations

import gc
import weakref

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from stcsm.space import (
    _counts,
    check_counts,
    count_totals,
    depth_factors,
    log_normalise,
    selected_blocks,
    stored_blocks,
    thin_counts,
)

FORMS = {"csr": sparse.csr_matrix, "csc": sparse.csc_array, "coo": sparse.coo_array, "dense": np.array}


@pytest.fixture
def x() -> np.ndarray:
    """20 spots x 12 genes."""
    return np.random.default_rng(0).poisson(1.5, (20, 12)).astype(np.float32)


@pytest.fixture
def full_checks(monkeypatch) -> list:
    """Shapes of the matrices of which every value was looked at."""
    seen = []
    whole = _counts.check_every_value
    monkeypatch.setattr(
        _counts, "check_every_value", lambda matrix, *names: (seen.append(matrix.shape), whole(matrix, *names))[1]
    )
    return seen


def check(matrix):
    check_counts(matrix, range(matrix.shape[0]), range(matrix.shape[1]))


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_an_unchanged_matrix_is_read_once_and_a_changed_one_again(x, form, full_checks):
    matrix = FORMS[form](x)
    for _ in range(3):
        check(matrix)
    assert len(full_checks) == 1
    check(matrix.copy())  # another object, whatever it holds
    assert len(full_checks) == 2
    values = matrix if form == "dense" else matrix.data
    values += 1
    check(matrix)
    assert len(full_checks) == 3


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_matrix_normalised_in_place_is_refused(x, form):
    matrix = FORMS[form](x)
    check(matrix)
    depth = x.sum(axis=1, keepdims=True)
    scaled = x / depth * depth.mean()  # the sum of all values stays what it was
    np.testing.assert_allclose(scaled.sum(), x.sum(), rtol=1e-5)
    if form == "dense":
        matrix[:] = scaled
    else:
        matrix.data[:] = FORMS[form](scaled).data
    with pytest.raises(ValueError, match="fractional"):
        check(matrix)


def test_half_a_count_of_many_is_seen():
    """Sums are taken in double precision whatever the counts are kept in."""
    half = np.full((1000, 1000), 40, dtype=np.float16)  # its sum and squares overflow in its own precision
    single = np.full((3000, 3000), 7, dtype=np.float32)
    for matrix in (half, single):
        check(matrix)
        matrix[0, 0] += 0.5
        with pytest.raises(ValueError, match="1 fractional"):
            check(matrix)


def test_what_was_refused_is_refused_again(x, full_checks):
    x[3, 3] = -1
    for _ in range(2):
        with pytest.raises(ValueError, match=r"1 negative \(first: -1 at spot 3, gene 3\)"):
            check(x)
    assert len(full_checks) == 2


def test_the_matrix_is_not_kept_alive(x):
    matrix = sparse.csr_matrix(x)
    check(matrix)
    gone = weakref.ref(matrix)
    number = id(matrix)
    assert number in _counts._passed
    del matrix
    gc.collect()
    assert gone() is None
    assert number not in _counts._passed


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_file_is_read_again_when_it_was_written_again(x, form, tmp_path, full_checks):
    adata = ad.AnnData(FORMS[form](x))
    adata.layers["twice"] = FORMS[form](2 * x)
    for n, path in enumerate([tmp_path / "a.h5ad", tmp_path / "b.h5ad", tmp_path / "a.h5ad"], start=1):
        adata.write_h5ad(path)
        backed = ad.read_h5ad(path, backed="r")
        for _ in range(2):
            check(backed.X)  # a new object each time
        backed.file.close()
        assert len(full_checks) == n
    adata.X = adata.X * 0.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="fractional"):
        check(backed.X)
    backed.file.close()


def test_views_and_lists_of_lists_are_checked_each_time(x, full_checks):
    adata = ad.AnnData(sparse.csr_matrix(x))
    for matrix in (adata[:10].X, adata[:10].X, x[::2, ::2], x[::2, ::2]):
        check(matrix)
    assert len(full_checks) == 4


def test_thinned_parts_add_up_and_have_their_share():
    counts = np.random.default_rng(0).poisson(4.0, (200, 50))
    first, rest = thin_counts(counts, 0.7, np.random.default_rng(1))
    np.testing.assert_array_equal((first + rest).toarray(), counts)
    # Binomial: the standard deviation of the share of n counts is sqrt(0.7 * 0.3 / n).
    assert first.sum() / counts.sum() == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / counts.sum()))
    # Poisson counts split in two are independent.
    assert abs(np.corrcoef(first.toarray().ravel(), rest.toarray().ravel())[0, 1]) < 0.04
    with pytest.raises(ValueError, match="share"):
        thin_counts(counts, 1.0, np.random.default_rng(1))


def test_log_normalised_spots_have_the_median_depth(x):
    x[4] = 0
    found = np.expm1(log_normalise(x).toarray().astype(float))
    depth = x.sum(axis=1)
    median = np.median(depth[depth > 0])
    np.testing.assert_allclose(found.sum(axis=1), np.where(depth > 0, median, 0), rtol=1e-5)
    np.testing.assert_allclose(found[0] / found[0].sum(), x[0] / x[0].sum(), rtol=1e-5)
    with pytest.raises(ValueError, match="only zeros"):
        log_normalise(np.zeros((3, 3)))


class Recorder:
    """A matrix on disk that notes what is asked of it."""

    def __init__(self, matrix, format):
        self.matrix, self.format, self.shape, self.asked = matrix, format, matrix.shape, []

    def __getitem__(self, index):
        self.asked.append(index)
        return self.matrix[index]


def test_blocks_follow_the_order_of_storage(x):
    by_columns = Recorder(sparse.csc_array(x), "csc")
    blocks = list(stored_blocks(by_columns, values=80))
    assert all(isinstance(i, tuple) and i[0] == slice(None) for i in by_columns.asked)
    np.testing.assert_array_equal(np.hstack([b.toarray() for *_, b in blocks]), x)
    assert [c for _, c, _ in blocks] == list(range(0, 12, 4))
    by_rows = Recorder(sparse.csr_array(x), "csr")
    blocks = list(stored_blocks(by_rows, values=80))
    assert all(isinstance(i, slice) for i in by_rows.asked)
    np.testing.assert_array_equal(np.vstack([b.toarray() for *_, b in blocks]), x)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_fault_is_located_in_any_block(form):
    x = np.zeros((3000, 3000), np.float32)  # more values than a block has
    x[2990, 2980] = 0.25
    x[5, 6] = 1
    names = [f"s{i}" for i in range(3000)], [f"g{i}" for i in range(3000)]
    matrix = FORMS[form](x)
    if form == "coo":
        matrix = matrix.tocsr()
    with pytest.raises(ValueError, match=r"1 fractional \(first: 0.25 at spot 's2990', gene 'g2980'\)"):
        check_counts(matrix, *names)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_totals_and_selected_rows_are_those_of_the_matrix(x, form, monkeypatch):
    for function in (stored_blocks, selected_blocks):
        monkeypatch.setattr(function, "__defaults__", (3 * x.shape[1],))
    matrix = form(x)
    spots, genes = count_totals(matrix)
    np.testing.assert_array_equal(spots, x.sum(axis=1))
    np.testing.assert_array_equal(genes, x.sum(axis=0))
    rows = np.array([0, 4, 5, len(x) - 1])
    found = np.zeros((len(rows), x.shape[1]))
    for row, column, block in selected_blocks(matrix, rows):
        found[row : row + block.shape[0], column : column + block.shape[1]] = block.toarray()
    np.testing.assert_array_equal(found, x[rows])


def test_blocks_are_normalised_as_the_whole_is(x):
    factor = depth_factors(x.sum(axis=1, dtype=np.float64))
    parts = [log_normalise(x[rows], factor[rows]).toarray() for rows in (slice(0, 5), slice(5, None))]
    np.testing.assert_array_equal(np.concatenate(parts), log_normalise(x).toarray())


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([[1309.4, 2618.8, 1309.4]], r"found 3 fractional \(first: 1309.4 at spot 's', gene 'a'\); .*normalize_total"),
        ([[0.5, 12345.0, 3.0]], "first: 0.5 at"),
    ],
)
def test_large_values_are_no_logarithms_and_fractions_are_shown(values, named):
    with pytest.raises(ValueError, match=named) as error:
        check_counts(np.array(values, dtype=np.float32), ["s"], ["a", "b", "c"])
    assert "log-normalised" not in str(error.value)
    with pytest.raises(ValueError, match="log-normalised"):
        check_counts(np.log1p(np.array([[1.0, 2.0, 7.0], [3.0, 0, 1.0]]) * 2.5), ["s", "t"], ["a", "b", "c"])
