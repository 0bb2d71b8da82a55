"""Pictures of a report, as data that stand in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from stcsm import _keys, pl
from stcsm.pl._tissue import find_picture

DPI = 110
MOST_SANITY = 30


class Pictures:
    """Draws what a result holds, one picture after another, without a window."""

    def __init__(self, adata: AnnData) -> None:
        self.adata = adata
        self.spatial_key = str(adata.uns[_keys.UNS].get("setup", {}).get("spatial_key", _keys.SPATIAL))
        self.drawn = self.spatial_key in adata.obsm

    def shown(self, rows: list[dict[str, Any]], progress: bool) -> Iterable[dict[str, Any]]:
        """The concepts, with a progress bar."""
        return tqdm(rows, desc="report", unit="concept", disable=not progress, leave=False)

    def of_concept(self, key: str) -> dict[str, str]:
        """Maps of one concept by heading."""
        if not self.drawn:
            return {}
        kinds = (("Concept map", _keys.CONCEPT_MAP), ("Saliency", _keys.CONCEPT_SALIENCY))
        made = {}
        for heading, table in kinds:
            if table in self.adata.obsm and key in pd.DataFrame(self.adata.obsm[table]):
                for section, part in self._sections():
                    figure = pl.saliency(part, [key], key=table, spatial_key=self.spatial_key)
                    figure.axes[0].set_title("")
                    made[f"{heading}, {section}" if section else heading] = encoded(figure)
        return made

    def _sections(self) -> list[tuple[str, AnnData]]:
        """Each section by its name; the whole, without a name, where there is one."""
        column = _keys.sections_key(self.adata)
        labels = np.array([]) if column is None else self.adata.obs[column].astype(str).to_numpy()
        names = np.unique(labels)
        return [(str(n), self.adata[labels == n]) for n in names] if len(names) > 1 else [("", self.adata)]

    def tissue(self) -> str:
        """The section's own picture, with the spots' outlines; empty where there is none."""
        found = find_picture(self.adata) if self.drawn and self.spatial_key == _keys.SPATIAL else None
        if found is None:
            return ""
        library, resolution = found
        entry = self.adata.uns["spatial"][library]
        image = np.asarray(entry["images"][resolution])
        scale = entry["scalefactors"][f"tissue_{resolution}_scalef"]
        xy = np.asarray(self.adata.obsm[self.spatial_key], dtype=float)[:, :2] * scale
        figure, ax = plt.subplots(figsize=(4.6, 4.6))
        ax.imshow(image)
        ax.scatter(xy[:, 0], xy[:, 1], s=6, facecolors="none", edgecolors="black", linewidths=0.3)
        margin = 0.06 * np.ptp(xy, axis=0).max()
        ax.set_xlim(xy[:, 0].min() - margin, xy[:, 0].max() + margin)
        ax.set_ylim(xy[:, 1].max() + margin, xy[:, 1].min() - margin)
        ax.set_axis_off()
        return encoded(figure, kind="jpg")

    def sanity(self, keys: list[str]) -> str:
        """The picture of the sanity check; empty where there was none."""
        record = self.adata.uns[_keys.UNS].get("sanity")
        if not record:
            return ""
        known = {str(key) for key in record["concepts"]}
        some = [key for key in keys if key in known][:MOST_SANITY]
        return encoded(pl.sanity(self.adata, some)) if some else ""


def encoded(figure: Figure, kind: str = "png") -> str:
    """A figure as a data address; the figure is closed."""
    held = io.BytesIO()
    try:
        figure.savefig(held, format=kind, dpi=DPI, bbox_inches="tight")
    finally:
        plt.close(figure)
    mime = "jpeg" if kind == "jpg" else kind
    return f"data:image/{mime};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
