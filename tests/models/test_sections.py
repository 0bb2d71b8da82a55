"""Several sections in one model: a sample is a gene in one section, its features are shared array positions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.metrics import roc_auc_score

import stcsm
from stcsm import tl
from stcsm.datasets import simulated_bulb
from stcsm.models import GeneVAE
from stcsm.models._likelihood import negative_binomial
from stcsm.models._module import NOWHERE

SMALL = {"smoothing": 0.0, "n_latent": 4, "n_hidden": 8}


def halves(bulb: ad.AnnData, share: float, lost: int = 0) -> ad.AnnData:
    """A section split in two by binomial thinning; the second, deeper one has lost its first spots."""
    whole = sparse.csr_matrix(bulb.X)
    counts = whole.data.astype(int)
    first = np.random.default_rng(0).binomial(counts, share)
    parts = {}
    for name, values in (("shallow", first), ("deep", counts - first)):
        parts[name] = bulb.copy()
        parts[name].X = sparse.csr_matrix((values.astype(np.float32), whole.indices, whole.indptr), shape=whole.shape)
    parts["deep"] = parts["deep"][lost:].copy()
    return ad.concat(parts, label="section", index_unique="-", merge="same")


def tiny(**kwargs) -> ad.AnnData:
    """Two sections of 5 x 6 positions and 40 genes; the second lacks three of them and has one that the first lacks."""
    rng = np.random.default_rng(1)
    rows, cols = (x.ravel() for x in np.meshgrid(range(5), range(6), indexing="ij"))
    parts = {}
    for name, kept in (("a", np.arange(29)), ("b", np.arange(3, 30))):
        x = rng.poisson(np.where(cols[kept][:, None] % 2 == np.arange(40) % 2, 4.0, 1.0))
        x[:, 7] = 0
        if name == "b":
            x[:, 8] = 0
        parts[name] = ad.AnnData(sparse.csr_matrix(x.astype(np.float32)))
        parts[name].obs["array_row"], parts[name].obs["array_col"] = rows[kept], cols[kept]
        parts[name].obsm["spatial"] = np.column_stack([cols, rows])[kept] * 10.0
        parts[name].obs_names = [f"s{i}" for i in kept]
        parts[name].var_names = [f"g{i}" for i in range(40)]
    both = ad.concat(parts, label="section", index_unique="-")
    for name, value in kwargs.items():
        both.obs[name] = value
    return both


def fitted(adata, epochs=2, batch_key="section", **kwargs):
    GeneVAE.setup_anndata(adata, batch_key=batch_key)
    model = GeneVAE(adata, **{**SMALL, **kwargs})
    model.train(max_epochs=epochs, progress=False)
    return model


@pytest.fixture(scope="module")
def trained() -> tuple[ad.AnnData, GeneVAE]:
    adata = halves(simulated_bulb(250, 500, image=False), 0.35, lost=15)
    GeneVAE.setup_anndata(adata, batch_key="section")
    model = GeneVAE(adata, smoothing=0.0)
    model.train(max_epochs=40, progress=False)
    return adata, model


def test_inputs_are_the_formula_within_a_section():
    adata = tiny()
    GeneVAE.setup_anndata(adata, batch_key="section")
    model = GeneVAE(adata, **SMALL)
    assert model.section_names == ("a", "b")
    assert model.describe()["n_positions"] == 30
    for name, kept in (("a", np.arange(29)), ("b", np.arange(3, 30))):
        x = adata[adata.obs["section"] == name].X.toarray().astype(float)
        expected = np.zeros(30)
        expected[kept] = np.log1p(x[:, 3] / (x[:, 3].sum() * x.sum(axis=1) / x.sum() + 0.5))
        np.testing.assert_allclose(model.inputs(["g3"], name).numpy()[0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"pass section=, one of \('a', 'b'\)"):
        model.inputs(["g3"])
    with pytest.raises(ValueError, match="found 'c'"):
        model.inputs(["g3"], "c")


@pytest.mark.parametrize("likelihood", ["nb", "multinomial", "bernoulli"])
def test_positions_without_a_spot_have_no_part_in_the_loss(likelihood):
    adata = tiny()
    GeneVAE.setup_anndata(adata, batch_key="section")
    model = GeneVAE(adata, likelihood=likelihood, **SMALL)
    module, there = model.module, np.arange(3, 30)
    counts = torch.from_numpy(model.samples.profiles(np.array([40 + 3, 40 + 4])))
    totals = counts.sum(dim=1, keepdim=True)
    f = torch.randn((2, 30), generator=torch.Generator().manual_seed(0))
    of_b = torch.tensor([1, 1])
    found = module.log_likelihood(0, f, counts, totals, of_b)
    moved = f.clone()
    moved[:, :3] += 5
    torch.testing.assert_close(module.log_likelihood(0, moved, counts, totals, of_b), found)
    if likelihood == "nb":
        alone = negative_binomial(
            counts[:, there], totals, f[:, there], module.log_depth[1, there], module.member(0).log_theta[there]
        )
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-4)
        assert (module.log_depth[1, :3] == NOWHERE).all()


def test_order_of_spots_and_sections_changes_nothing():
    adata = tiny()
    order = np.random.default_rng(3).permutation(adata.n_obs)
    model, other = fitted(adata, epochs=5), fitted(adata[order].copy(), epochs=5)
    np.testing.assert_array_equal(model.get_latent_representation(), other.get_latent_representation())
    z = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(model.decode(z)[:, order], other.decode(z))


@pytest.mark.parametrize("encoder", ["mlp", "conv"])
def test_one_section_with_a_key_is_one_without(encoder):
    adata = tiny()
    adata = adata[adata.obs["section"] == "b"].copy()
    named, plain = (fitted(adata.copy(), batch_key=key, smoothing="auto", encoder=encoder) for key in ("section", None))
    assert named.fingerprint() == plain.fingerprint()
    np.testing.assert_array_equal(named.get_latent_representation(section="b"), plain.get_latent_representation())
    with pytest.raises(ValueError, match="batch_key="):
        plain.get_latent_representation(section="b")


def test_latents_of_a_gene_are_the_mean_of_its_sections_by_counts():
    adata = tiny()
    model = fitted(adata)
    (za, va), (zb, vb) = (model.get_latent_representation(give_var=True, section=s) for s in "ab")
    z, var = model.get_latent_representation(give_var=True)
    x = adata.X.toarray()
    in_a = (adata.obs["section"] == "a").to_numpy()
    share = x[in_a, 3].sum() / x[:, 3].sum()
    np.testing.assert_allclose(z[3], share * za[3] + (1 - share) * zb[3], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(var[3], share**2 * va[3] + (1 - share) ** 2 * vb[3], rtol=1e-4)
    assert np.isnan(z[7]).all()
    assert np.isnan(zb[8]).all()
    np.testing.assert_array_equal(z[8], za[8])


def test_halves_of_a_section_agree(trained):
    adata, model = trained
    shallow, deep = (model.get_latent_representation(section=s) for s in ("shallow", "deep"))
    patterned = (adata.var["layer"].astype(str).isin(adata.obs["layer"].astype(str).unique())).to_numpy()
    counted = (model.section_totals("shallow") >= 100) & patterned
    assert counted.sum() > 50
    r = [np.corrcoef(shallow[counted, i], deep[counted, i])[0, 1] for i in range(20)]
    assert np.median(r) > 0.8
    # A gene is nearer to itself than to other genes.
    a, b = (z[counted] - z[counted].mean(axis=0) for z in (shallow, deep))
    near = np.corrcoef(a, b)[: len(a), len(a) :]
    assert (near.argmax(axis=1) == np.arange(len(a))).mean() > 10 / len(a)


def test_every_step_works_and_finds_the_layers_in_both(trained, tmp_path):
    adata, model = trained
    adata = adata.copy()
    tl.embed_genes(adata, model)
    tl.concepts(adata, model, groupby="layer")
    tl.saliency(adata, model)
    tl.significance(adata, model, n_random=20)
    tl.decoded(adata, model)
    tl.concept_map(adata, model)
    tl.sanity(adata, model, n_random=5, n_draws=1, most_genes=50)
    assert adata.varm["X_stcsm"].shape == (500, 20)
    labels = adata.obs["layer"].astype(str).to_numpy()
    # What a map of chance would give is 0.5; the shallow section has a third of the counts.
    for key, least in (("concept_saliency", 0.85), ("concept_decoded", 0.9), ("concept_map", 0.9)):
        table = adata.obsm[key]
        assert np.isfinite(table.to_numpy()).all()
        for section in ("shallow", "deep"):
            own = (adata.obs["section"] == section).to_numpy()
            for concept in table:
                truth = labels[own] == adata.uns["stcsm"]["concepts"][concept]["label"]
                assert roc_auc_score(truth, table[concept][own]) > least
    graph = adata.obsp["stcsm_spot_graph"].tocoo()
    section = adata.obs["section"].to_numpy()
    assert (section[graph.row] == section[graph.col]).all()
    one = tl.gene_saliency(adata, model, "Granular Cell Layer", ["Penk"], method="integrated_gradients", steps=100)
    vector = adata.uns["stcsm"]["concepts"]["Granular Cell Layer"]["vectors"][0]
    nothing = model.encoder(torch.zeros(1, *model.input_shape)).detach().numpy() @ vector
    penk = adata.var_names.get_loc("Penk")
    for name in ("shallow", "deep"):
        rise = model.get_latent_representation(section=name)[penk] @ vector - nothing
        assert one.X[0, section == name].sum() == pytest.approx(rise.item(), rel=1e-3, abs=1e-3)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["concept_map"], adata.obsm["concept_map"])
    assert again.uns["stcsm"]["setup"]["batch_key"] == "section"


def test_saliency_of_a_section_is_that_of_its_own_samples(trained):
    adata, model = trained
    adata = adata.copy()
    tl.concepts(adata, model, genes={"granule": ["Penk"]})
    tl.saliency(adata, model, genes=["Penk", "Doc2g"])
    vector = torch.tensor(adata.uns["stcsm"]["concepts"]["granule"]["vectors"][0], dtype=torch.float32)
    for name in ("shallow", "deep"):
        u = model.inputs(["Penk", "Doc2g"], name).requires_grad_()
        (model.encoder(u) @ vector).sum().backward()
        own = (adata.obs["section"] == name).to_numpy()
        expected = model.maps_to_spots(u.grad.mean(dim=0).numpy(), name)
        np.testing.assert_allclose(adata.obsm["concept_saliency"]["granule"][own], expected, rtol=1e-4, atol=1e-7)


def test_genes_of_a_concept_without_a_count_in_a_section_are_ignored_there():
    adata = tiny()
    model = fitted(adata, epochs=5)
    tl.concepts(adata, model, genes={"x": ["g8", "g9"], "y": ["g8"]})
    tl.saliency(adata, model, "x", genes="concept", method="input_x_gradient")
    with_both = adata.obsm["concept_saliency"]["x"].to_numpy()
    tl.saliency(adata, model, "x", genes=["g9"], method="input_x_gradient")
    alone = adata.obsm["concept_saliency"]["x"].to_numpy()
    in_b = (adata.obs["section"] == "b").to_numpy()
    np.testing.assert_allclose(with_both[in_b], alone[in_b], rtol=1e-5, atol=1e-8)
    assert not np.allclose(with_both[~in_b], alone[~in_b])
    tl.saliency(adata, model, "y", genes="concept", method="input_x_gradient")
    assert (adata.obsm["concept_saliency"]["y"][in_b] == 0).all()


@pytest.mark.parametrize("likelihood", ["nb", "bernoulli"])
def test_convolutions_over_the_positions_of_all(likelihood):
    adata = tiny()
    model = fitted(adata, encoder="conv", likelihood=likelihood)
    assert model.input_shape == (1, 5, 6)
    images = model.inputs(["g3"], "b").numpy()
    assert (images[0, 0, 0, :3] == 0).all()
    flat = GeneVAE(adata, **SMALL, likelihood=likelihood).inputs(["g3"], "b").numpy()
    np.testing.assert_allclose(images.ravel(), flat[0], rtol=1e-6)
    tl.concepts(adata, model, genes={"x": ["g1", "g3"]})
    tl.saliency(adata, model)
    tl.concept_map(adata, model)
    assert np.isfinite(adata.obsm["concept_map"].to_numpy()).all()


def test_save_and_load(tmp_path, capsys):
    adata = tiny()
    model = fitted(adata, smoothing=1.0)
    model.view_anndata_setup()
    assert "batch" in capsys.readouterr().out
    model.save(tmp_path / "m")
    again = GeneVAE.load(tmp_path / "m", adata.copy())
    assert again.fingerprint() == model.fingerprint()
    for section in (None, "a", "b"):
        np.testing.assert_array_equal(
            again.get_latent_representation(section=section), model.get_latent_representation(section=section)
        )
    z = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(again.decode(z), model.decode(z))
    again.train(max_epochs=1, progress=False)


def test_coordinates_are_positions_where_there_are_no_rows_and_columns():
    adata = tiny()
    del adata.obs["array_row"], adata.obs["array_col"]
    assert fitted(adata).describe()["n_positions"] == 30


def other_frame(adata):
    adata.obs.loc[adata.obs["section"] == "b", "array_row"] += 4


def doubled(adata):
    adata.obs.loc[["s5-b", "s6-b"], "array_col"] = 0
    adata.obs.loc[["s5-b", "s6-b"], "array_row"] = 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.obs.pop("section"), "section of each spot in adata.obs"),
        (lambda a: a.obs.__setitem__("section", np.where(np.arange(56) == 3, None, "x")), "1 of 56 spots without one"),
        (doubled, r"3 spots of section 'b' share 1 positions by \(array_row, array_col\).*bin_spots"),
        (
            other_frame,
            r"section 'a' has 2 of its 29 positions.*'a': 0 to 4 x 0 to 5; 'b': 4 to 8 x 0 to 5.*register the sections",
        ),
    ],
)
def test_sections_that_do_not_fit_are_refused(spoil, message):
    adata = tiny()
    spoil(adata)
    with pytest.raises(ValueError, match=message):
        GeneVAE.setup_anndata(adata, batch_key="section")
    assert "stcsm" not in adata.uns


def test_what_takes_one_section_says_so():
    adata = tiny(left="x")
    adata.obs.loc[adata.obs["array_col"] < 3, "left"] = "y"
    model = fitted(adata)
    with pytest.raises(ValueError, match="model of one section, on the spots"):
        tl.concepts(adata, model, groupby="left", estimator="profile")
    with pytest.raises(ValueError, match="one section for the published model"):
        GeneVAE.published(adata)


def test_sections_that_do_not_lie_on_one_another_are_named(trained, caplog):
    adata, model = trained
    assert model.section_agreement()["deep", "shallow"] > 0.6
    strange = adata.copy()
    deep = np.flatnonzero(strange.obs["section"] == "deep")
    # The deep section's tissue, with its positions permuted.
    moved = np.random.default_rng(0).permutation(deep)
    for name in ("array_row", "array_col"):
        if name in strange.obs:
            values = strange.obs[name].to_numpy().copy()
            values[deep] = values[moved]
            strange.obs[name] = values
    coordinates = strange.obsm["spatial"].copy()
    coordinates[deep] = coordinates[moved]
    strange.obsm["spatial"] = coordinates
    GeneVAE.setup_anndata(strange, batch_key="section")
    other = GeneVAE(strange, smoothing=0.0)
    with caplog.at_level("WARNING", logger="stcsm"):
        other.train(max_epochs=10, progress=False)
    assert other.section_agreement()["deep", "shallow"] < 0.4
    assert "'deep' than in 'shallow'" in caplog.text


def test_the_advice_for_arrays_and_cells_runs_as_it_is_written():
    """ST spots lie beside the centres of the array; cells lie anywhere, and are added up after they are binned."""
    rng = np.random.default_rng(0)
    arrays = np.stack(np.meshgrid(np.arange(12.0), np.arange(10.0)), -1).reshape(-1, 2)
    for at, steps in ((arrays, 1), (rng.random((120, 2)) * 100, 2)):
        adata = ad.AnnData(rng.poisson(3.0, (240, 4)).astype(np.float32))
        adata.obsm["spatial"] = np.r_[at, at[::-1]] + rng.normal(0, 0.05, (240, 2))
        adata.obs["section"] = np.repeat(["a", "b"], 120)
        with pytest.raises(ValueError, match="in common with the others") as error:
            GeneVAE.setup_anndata(adata, batch_key="section")
        lines = str(error.value).split("bring them onto one grid: ")[1].split(", then ")
        assert len(lines) == steps
        held = {"stcsm": stcsm, "adata": adata}
        exec(lines[0], held)
        if steps == 2:
            with pytest.raises(
                ValueError, match=r"obsm\['spatial'\] lies on none.*n_bins=5, batch_key='section'\), then"
            ):
                stcsm.pp.to_grid(adata.copy(), spatial_key="spatial", batch_key="section")
            with pytest.raises(ValueError, match=r"array_col\); add them up: adata = stcsm.pp.bin_spots\(adata\)$"):
                GeneVAE.setup_anndata(adata, batch_key="section")
            exec(lines[1], held)
        GeneVAE.setup_anndata(held["adata"], batch_key="section")
        assert held["adata"].X.sum() == adata.X.sum()
