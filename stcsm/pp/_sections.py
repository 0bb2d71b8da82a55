"""Which section each spot belongs to."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from stcsm._lazy import column
from stcsm._text import section_names as name_sections


def section_names(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Name of each spot's section as text, (S,); None where no column is named.

    Raises
    ------
    ValueError
        If there is no such column, or a spot has no section.
    """
    if batch_key is None:
        return None
    if batch_key not in adata.obs:
        raise ValueError(
            f"Expected the section of each spot in adata.obs[{batch_key!r}], found the columns "
            f"{sorted(map(str, adata.obs))}"
        )
    return name_sections(column(adata.obs, batch_key), f"adata.obs[{batch_key!r}]", adata.obs_names)


def section_codes(adata: AnnData, batch_key: str | None) -> np.ndarray | None:
    """Number of each spot's section, in the order of their names, (S,); None where no column is named."""
    names = section_names(adata, batch_key)
    return None if names is None else np.unique(names, return_inverse=True)[1]
