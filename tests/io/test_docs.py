"""The examples of docs/data.md run as they stand."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stcsm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"


@pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not part of this installation")
def test_every_example_of_the_data_page_runs(tmp_path, monkeypatch, data_dir):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bulb = stcsm.datasets.simulated_bulb(150, 200, n_markers=2, image=False)
    bulb.layers["counts"] = bulb.X.copy()
    bulb.write_h5ad(tmp_path / "sample.h5ad")
    table = pd.DataFrame(bulb.X.toarray().astype(int), index=bulb.obs_names, columns=bulb.var_names)
    table.to_csv(tmp_path / "counts.tsv.gz", sep="\t")
    bulb.obs["layer"].to_csv(tmp_path / "layers.csv")
    pd.DataFrame({"spot": bulb.obs_names, "donor": "a", "region": "core"}).to_csv(
        tmp_path / "annotation.tsv", sep="\t", index=False
    )
    (tmp_path / "transformation.txt").write_text("100 0 0 0 100 0 0 0 1\n")
    Image.new("RGB", (3400, 2600), "pink").save(tmp_path / "he.jpg")
    Image.new("RGB", (850, 650), "pink").save(tmp_path / "he_small.jpg")
    shutil.copytree(data_dir / "visium" / "outs_spaceranger_1", tmp_path / "sample" / "outs")
    monkeypatch.chdir(tmp_path)

    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) >= 7
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # an example that warns is no example
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
            if "add_labels" in block:
                labelled = names["adata"]
                assert labelled.obs["layer"].tolist() == bulb.obs["layer"].tolist()
                np.testing.assert_allclose(labelled.obsm["spatial"], 100 * labelled.obsm["spatial_array"])
    assert names["adata"].shape == (600, 2000)
    plt.close("all")
