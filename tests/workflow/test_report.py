"""The report: one page that holds everything, runs nothing, shows names as they are, written whole or not at all."""

from __future__ import annotations

import os
import re
import stat
from html.parser import HTMLParser

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from typer.testing import CliRunner

import stcsm
from stcsm.cli import app
from stcsm.models import GeneVAE
from stcsm.workflow.report import _page, write_report
from tests.models.test_sections import tiny

NASTY = "<script>alert('x')</script> & \"co\"/1"
GENE = "<img src=x>"


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.styled = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.styled = tag == "style"

    def handle_endtag(self, tag):
        self.styled = False

    def handle_data(self, data):
        if not self.styled:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    adata = stcsm.datasets.simulated_bulb(n_spots=120, n_genes=300, seed=2)
    marker = adata.var.query("layer == 'Granular Cell Layer'")["strength"].idxmax()
    adata.var_names = [GENE if name == marker else name for name in adata.var_names]
    GeneVAE.setup_anndata(adata)
    model = GeneVAE(adata, n_latent=6, n_hidden=32)
    model.train(max_epochs=20, progress=False)
    stcsm.tl.concepts(adata, model, genes={NASTY: [GENE]}, groupby="layer")
    stcsm.tl.saliency(adata, model)
    stcsm.tl.concept_map(adata, model)
    stcsm.tl.significance(adata, model, n_random=50)
    stcsm.tl.sanity(adata, model, n_draws=1, n_random=5)
    path = tmp_path_factory.mktemp("report") / "result.h5ad"
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def page(result):
    out = write_report(result, result.parent / "report.html", title="Bulb <b>")
    return Page(out.read_text(encoding="utf-8"))


def test_nothing_comes_from_elsewhere_and_nothing_runs(page, result):
    assert not [t for t, _ in page.tags if t in ("script", "link", "iframe", "object", "embed")]
    sources = [a["src"] for t, a in page.tags if t == "img"]
    assert len(sources) >= 12
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$", s) for s in sources)
    assert all(a["href"].startswith("#") for t, a in page.tags if t == "a")
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    raw = (result.parent / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", raw)


def test_names_are_shown_as_they_are(page):
    assert NASTY in page.text
    assert GENE in page.text
    assert "Bulb <b>" in page.text
    assert [a for t, a in page.tags if t == "img" and a["src"] == "x"] == []


def test_everything_is_there(page, result):
    adata = ad.read_h5ad(result)
    own = adata.uns["stcsm"]
    for record in own["concepts"].values():
        assert record["label"] in page.text
    for label in adata.obs["layer"].cat.categories:
        best = adata.varm["concept_score"][label].nlargest(12).index
        assert all(gene in page.text for gene in best)
    for _, row in own["sanity"]["summary"].iterrows():
        assert " ".join(row["words"].split()) in page.text
    for _, row in own["significance"]["table"].iterrows():
        assert f"p = {row['p']:.2g}" in page.text
    for word in ("Settings and versions", "scvi-tools", "Sanity of the maps", "Genes that score highest", "n_latent"):
        assert word in page.text
    assert any(a.get("name") == "viewport" for t, a in page.tags if t == "meta")


def _shown_genes(folder, scores, concept):
    """Rows of the table of genes in the report of one concept: (in the definition, name, rank if shown, bar in %)."""
    names = [f"g{i}" for i in range(len(scores))]
    adata = AnnData(np.ones((2, len(scores)), dtype=np.float32), var=pd.DataFrame(index=names))
    adata.varm["concept_score"] = pd.DataFrame({"c": scores}, index=names)
    adata.obsm["concept_saliency"] = pd.DataFrame({"c": [0.0, 1.0]}, index=adata.obs_names)
    genes, weights = np.array(list(concept), dtype=object), np.array(list(concept.values()))
    record = {"label": "c", "estimator": "contrast", "genes": genes, "weights": weights}
    adata.uns["stcsm"] = {"concepts": {"c": record}}
    adata.write_h5ad(folder / "a.h5ad")
    page = write_report(folder / "a.h5ad", folder / "a.html").read_text(encoding="utf-8")
    row = (
        r'<tr( class="in-set")?><td class="name">(\w+)(?: <span class="soft">\(rank (\d+)\)</span>)?</td>'
        r'<td class="bar"><i style="width: (\d+)%">'
    )
    return [(bool(own), name, rank, int(share)) for own, name, rank, share in re.findall(row, page)]


@pytest.mark.parametrize(("place", "shown"), [(11, ""), (12, "13"), (19, "20")])
def test_the_highest_of_a_concepts_own_genes_is_among_those_shown(tmp_path, place, shown):
    rows = _shown_genes(tmp_path, np.arange(20.0, 0, -1), {f"g{place}": 1.0, "g19": 0.5})
    assert [name for _, name, _, _ in rows] == [f"g{i}" for i in range(12)] + ([f"g{place}"] if shown else [])
    assert rows[-1][2] == shown
    assert not any(rank for _, _, rank, _ in rows[:12])
    assert rows[-1][0]


def test_the_scale_is_that_of_the_highest_and_genes_against_a_concept_are_not_added(tmp_path):
    scores = [*np.linspace(2, 0.9, 19), -8.0]
    rows = _shown_genes(tmp_path, scores, {"g19": 1.0})
    assert rows[0] == (False, "g0", "", 100)
    assert rows[-1] == (True, "g19", "20", 0)
    assert len(_shown_genes(tmp_path, scores, {"g19": -1.0})) == 12


def test_a_result_without_statistics_and_sanity_has_a_report_too(result, tmp_path):
    adata = ad.read_h5ad(result)
    adata.uns["stcsm"] = {k: v for k, v in adata.uns["stcsm"].items() if k not in ("significance", "sanity")}
    adata.write_h5ad(tmp_path / "bare.h5ad")
    text = Page(write_report(tmp_path / "bare.h5ad", tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "Sanity of the maps" not in text
    assert "random genes" not in text
    assert NASTY in text


def test_a_result_whose_concepts_were_taken_away_has_a_report_of_the_others(result, tmp_path):
    adata = ad.read_h5ad(result)
    gone, unknown, *others = adata.uns["stcsm"]["concepts"]
    label = adata.uns["stcsm"]["concepts"][gone]["label"]
    kept = [adata.uns["stcsm"]["concepts"][k]["label"] for k in (unknown, *others)]
    del adata.uns["stcsm"]["concepts"][gone]
    adata.uns["stcsm"]["concept_info"] = adata.uns["stcsm"]["concept_info"].drop(index=unknown)
    adata.write_h5ad(tmp_path / "part.h5ad")
    text = Page(write_report(tmp_path / "part.h5ad", tmp_path / "r.html").read_text(encoding="utf-8")).text
    headings = text[text.index("At a glance") : text.index("Concepts")]
    assert label not in headings
    assert all(name in headings for name in kept)


def test_the_page_is_written_whole_or_not_at_all(result, tmp_path, monkeypatch):
    out = tmp_path / "r.html"
    out.write_text("<!doctype html>old")

    def broken(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space left"):
        write_report(result, out)
    assert out.read_text() == "<!doctype html>old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_the_page_can_be_read_by_others(result, tmp_path):
    out = write_report(result, tmp_path / "r.html")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~mask


def test_bad_input_is_refused_before_any_work(result, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        write_report(tmp_path / "absent.h5ad", tmp_path / "r.html")
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(ValueError, match="cannot be read"):
        write_report(tmp_path / "text.h5ad", tmp_path / "r.html")
    ad.AnnData(np.ones((3, 2), dtype=np.float32)).write_h5ad(tmp_path / "plain.h5ad")
    with pytest.raises(ValueError, match="concepts of stcsm"):
        write_report(tmp_path / "plain.h5ad", tmp_path / "r.html")
    with pytest.raises(ValueError, match="another file than the result"):
        write_report(result, result)
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("mine")
    with pytest.raises(FileExistsError, match="HTML page to replace, found another file"):
        write_report(result, thesis)
    assert thesis.read_text() == "mine"
    with pytest.raises(FileExistsError, match="folder"):
        write_report(result, tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        write_report(result, tmp_path / "no" / "r.html")


def test_the_command(result, tmp_path):
    done = CliRunner().invoke(app, ["report", str(result), "--out", str(tmp_path / "r.html"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_each_section_has_its_own_images(tmp_path):
    adata = tiny()
    GeneVAE.setup_anndata(adata, batch_key="section")
    model = GeneVAE(adata, smoothing=0.0, n_latent=4, n_hidden=8)
    model.train(max_epochs=2, progress=False)
    stcsm.tl.concepts(adata, model, genes={"even": ["g0", "g2"]})
    stcsm.tl.concept_map(adata, model)
    stcsm.tl.saliency(adata, model)
    adata.write_h5ad(tmp_path / "a.h5ad")
    write_report(tmp_path / "a.h5ad", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    for heading in ("Concept map, a", "Concept map, b", "Saliency, a", "Saliency, b"):
        assert heading in page


def test_an_image_that_the_spots_do_not_name_is_drawn_where_it_is_named(result, tmp_path, monkeypatch):
    monkeypatch.setattr(_page, "MOST_CONCEPTS", 1)
    named = ad.read_h5ad(result)
    named.obs["sample"] = "P1"
    xy = named.obsm["spatial"]
    image = np.full((60, 60, 3), (0, 255, 0), np.uint8)
    factors = {"tissue_hires_scalef": 50 / float(xy.max()), "spot_diameter_fullres": float(np.ptp(xy) / 10)}
    named.uns["spatial"] = {"V1": {"images": {"hires": image}, "scalefactors": factors}}
    named.write_h5ad(tmp_path / "named.h5ad")
    for library, there in ((None, False), ("V1", True)):
        page = write_report(tmp_path / "named.h5ad", tmp_path / "page.html", library_id=library).read_text("utf-8")
        assert ("data:image/jpeg" in page) is there
    with pytest.raises(ValueError, match=r"library_id to be the name of an image .* found 'V2'; there are \['V1'\]"):
        write_report(tmp_path / "named.h5ad", tmp_path / "page.html", library_id="V2")
