"""How many principal components a linear encoder of the genes should have, by held-out counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.utils.extmath import randomized_svd

from stcsm.space._heldout import HeldOutCounts

COMPONENTS = (5, 10, 20)


def choose_components(
    held: HeldOutCounts, smoother: csr_array | None = None, *, candidates: Sequence[int] = COMPONENTS, seed: int = 0
) -> int:
    """Choose the number of components of the depth-corrected input that predicts held-out counts best.

    The input is u = log1p(x / (n d + 1/2)) of the 70% of the counts that are kept, centred over genes; its rank-n
    reconstruction, turned back into counts, is scored as :meth:`HeldOutCounts.gain` scores every smoother.

    Parameters
    ----------
    held
        Counts thinned 70/30.
    smoother
        Spatial filter (S, S) of the input; None is none.
    candidates
        Numbers that are tried; those that the data cannot have are left out.
    seed
        Of the randomised decomposition.

    Returns
    -------
    int
    """
    expected = np.outer(held.depth, held.training.sum(axis=0)).astype(np.float32)
    u: NDArray[np.floating] = np.log1p(held.training / (expected + 0.5))
    if smoother is not None:
        u = np.asarray(smoother @ u)
    most = min(u.shape) - 1
    tried = sorted({min(n, most) for n in candidates if min(n, most) >= 1})
    centre = u.mean(axis=1, keepdims=True)
    left, size, right = randomized_svd(u - centre, tried[-1], random_state=seed)
    gain: dict[int, float] = {}
    for n in tried:
        back = np.expm1(np.maximum(centre + (left[:, :n] * size[:n]) @ right[:n], 0))
        gain[n] = held.gain(back * (expected + 0.5), held.depth)[0]
    return max(gain, key=lambda n: gain[n])
