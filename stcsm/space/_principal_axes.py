"""Principal axes of samples that are read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

EXTRA, PASSES = 10, 6
"""Directions beyond those asked for, and passes over the samples, that find the axes to three digits."""


def principal_axes(
    blocks: Callable[[], Iterable[np.ndarray]], n: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Leading principal axes of samples, in passes over blocks of them.

    Block Krylov iteration (Musco & Musco 2015, arXiv 1504.05477): axes are sought among the directions of all passes.
    The last ones stand little above the noise, and the newest directions alone would need many times the passes.

    Parameters
    ----------
    blocks
        Returns the blocks (n_i, F) of samples, the same ones whenever it is called.
    n
        Number of axes; fewer come back where there are fewer samples or features.
    seed
        Of the first directions.

    Returns
    -------
    Orthonormal axes (F, n), and the samples' mean (F,), float64.

    Raises
    ------
    ValueError
        If there is no sample.
    """
    count, total = 0, None
    for block in blocks():
        own = block.sum(axis=0, dtype=np.float64)
        count, total = count + len(block), own if total is None else total + own
    if total is None or not count:
        raise ValueError("Expected samples to find the axes of, found none.")
    centre, features = total / count, len(total)
    width = min(n + EXTRA, features, count)
    newest = np.linalg.qr(np.random.default_rng(seed).normal(size=(features, width)))[0]
    basis = newest
    for _ in range(PASSES):
        room = features - basis.shape[1]
        if room < 1:
            break
        image = np.zeros_like(newest)
        for block in blocks():
            u = block - centre
            image += u.T @ (u @ newest)
        for _again in range(2):  # once leaves rounding errors behind that grow from pass to pass
            image -= basis @ (basis.T @ image)
        # Beyond what the samples span the new directions are arbitrary: they do no harm, and weigh nothing.
        newest = np.linalg.qr(image)[0][:, :room]
        basis = np.hstack([basis, newest])
    basis = np.linalg.qr(basis)[0]
    inner = np.zeros((basis.shape[1],) * 2)
    for block in blocks():
        scores = (block - centre) @ basis
        inner += scores.T @ scores
    _, rotation = np.linalg.eigh(inner)
    return basis @ rotation[:, ::-1][:, :n], centre
