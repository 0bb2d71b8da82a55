"""The command line from files to files."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import stcsm
from stcsm.cli import OPTIONS, app, in_shell, main
from stcsm.models import GeneVAE


def stcsm_command(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "stcsm", *map(str, args)], capture_output=True, text=True)


def run_here(patch: pytest.MonkeyPatch, *args) -> int:
    """Run the command line in this process; its exit status."""
    patch.setattr(os, "environ", os.environ.copy())  # what the command sets ends with the test
    patch.setattr(sys, "argv", ["stcsm", *map(str, args)])
    try:
        main()
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def command_here(monkeypatch, capsys):
    """The command line in this process: a new one takes seconds to import everything."""

    def run(*args) -> subprocess.CompletedProcess:
        status = run_here(monkeypatch, *args)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(args, status, out, err)

    return run


@pytest.mark.parametrize(("before", "after"), [(None, "passive"), ("active", "active")])
def test_threads_do_not_spin_unless_asked_to(command_here, monkeypatch, tmp_path, before, after):
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    assert command_here("run", "absent.tsv", "--genes", "a=b", "--out", tmp_path / "out").returncode == 2
    assert os.environ["OMP_WAIT_POLICY"] == after


@pytest.fixture(scope="module")
def counts(tmp_path_factory):
    """An ST text file and its labels."""
    folder = tmp_path_factory.mktemp("counts")
    a = stcsm.datasets.simulated_bulb(n_spots=150, n_genes=300, seed=1)
    xy = np.round(a.obsm["spatial"] / np.ptp(a.obsm["spatial"], axis=0) * 25 + 2, 3)
    names = [f"{x}x{y}" for x, y in xy]
    table = pd.DataFrame(a.X.toarray().astype(int), index=names, columns=a.var_names)
    table.to_csv(folder / "counts.tsv", sep="\t")
    a.obs["layer"].astype(str).set_axis(names).rename_axis("spot").to_csv(folder / "labels.csv")
    marker = a.var.query("layer == 'Granular Cell Layer'")["strength"].idxmax()
    return folder, marker, a.obs["layer"].astype(str).set_axis(names)


@pytest.fixture(scope="module")
def results(counts):
    folder, marker, _ = counts
    command = ["run", folder / "counts.tsv", "--labels", folder / "labels.csv", "--genes", f"g/1={marker}", "--quiet"]
    for out in ("one", "two"):  # each in a process of its own, as users run it
        done = stcsm_command(*command, "--out", folder / out)
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_same_seed_same_files(results):
    for name in ("concept_saliency.csv", "concept_map.csv", "concept_scores.csv"):
        assert (results / "one" / name).read_bytes() == (results / "two" / name).read_bytes()


def test_maps_find_their_layers(results, counts):
    layers = counts[2]
    table = pd.read_csv(results / "one" / "concept_map.csv", index_col="spot")
    assert set(table) == {"g/1", *layers.unique()}
    for layer in layers.unique():
        assert roc_auc_score(layers[table.index] == layer, table[layer]) > 0.85, layer


def test_everything_is_written_and_loads(results):
    out = results / "one"
    assert (out / "concept_maps.png").read_bytes()[:4] == b"\x89PNG"
    adata = ad.read_h5ad(out / "result.h5ad")
    model = stcsm.models.GeneVAE.load(out / "model", adata)
    np.testing.assert_array_equal(model.get_latent_representation(), adata.varm["X_stcsm"])
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [
            "concept_saliency.csv",
            "concept_map.csv",
            "concept_scores.csv",
            "concept_significance.csv",
            "sanity.json",
            "run.json",
            "concept_maps.png",
            "result.h5ad",
            "model",
        ]
    )


def test_the_sanity_of_every_concept_is_in_a_file_and_in_words(results, counts):
    found = json.loads((results / "one" / "sanity.json").read_text(encoding="utf-8"))
    assert set(found["concepts"]) == {"g/1", *counts[2].unique()}
    for name, numbers in found["concepts"].items():
        assert abs(numbers["random_network"]) < 0.5, name
        assert numbers["opposite_concept"] < -0.99, name
        assert numbers["other_seed"] is not None
        assert "The map belongs to this concept" in numbers["words"]
    assert "Spearman" in found["meaning"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--genes", "g=NOPE"], "NOPE"),
        (["--genes", "nothing"], "NAME=GENE1"),
        ([], "found none"),
        (["--genes", "g=x", "--genes", "g=y"], "twice"),
        (["--labels", "absent.csv"], "absent.csv"),
        (["--labels-key", "absent"], "absent"),
    ],
)
def test_bad_input_is_one_line_and_status_2(counts, command_here, tmp_path, args, message):
    done = command_here("run", counts[0] / "counts.tsv", "--out", tmp_path / "out", "--quiet", *args)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stcsm: ")
    assert message in last
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def identifiers(tmp_path_factory):
    """The same tissue under Ensembl-like names, with mouse symbols in a column."""
    folder = tmp_path_factory.mktemp("identifiers")
    a = stcsm.datasets.simulated_bulb(n_spots=150, n_genes=300, seed=1)
    a.var["symbol"] = [f"Gene{i}" for i in range(a.n_vars)]
    a.var_names = [f"ENSMUSG{i:011d}" for i in range(a.n_vars)]
    a.obs["half"] = np.where(a.obsm["spatial"][:, 0] > np.median(a.obsm["spatial"][:, 0]), "right", "left")
    a.obs.loc[a.obs_names[0], "half"] = "alone"
    a.write_h5ad(folder / "counts.h5ad")
    granule = a.var[a.var["layer"] == "Granular Cell Layer"].nlargest(4, "strength")
    return folder, granule, a.obs["layer"].astype(str)


def test_gene_sets_of_another_species_are_matched_on_a_column(identifiers, command_here, tmp_path):
    """Human symbols (upper case) against mouse symbols in ``.var``, the genes' own names being Ensembl's."""
    folder, granule, layers = identifiers
    gmt = tmp_path / "sets.gmt"
    # Brackets in a name are not markup for the terminal.
    gmt.write_text("GRANULE [/x]\thuman\t" + "\t".join(granule["symbol"].str.upper()) + "\nUNKNOWN\tx\tTP53\tMYC\n")
    done = command_here(
        "run", folder / "counts.h5ad", "--gmt", gmt, "--match", "symbol", "--ignore-case", "--n-seeds", 1,
        "--labels-key", "half", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "GRANULE [/x]" in done.stdout
    assert done.stderr.count("labels of a single spot") == 1
    assert done.stderr.count("UNKNOWN") == 1  # left out, and said so
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert list(stcsm.tl.concept_table(result)["label"]) == ["GRANULE [/x]", "left", "right"]
    key = result.varm["concept_score"].columns[0]
    assert set(result.uns["stcsm"]["concepts"][key]["genes"]) == set(granule.index)
    assert roc_auc_score(layers == "Granular Cell Layer", result.obsm["concept_map"][key]) > 0.9


@pytest.mark.parametrize(
    ("genes", "args", "message"),
    [
        ("{SYMBOLS}", ["--match", "symbol"], "--ignore-case"),
        ("{symbols}", ["--match", "nowhere"], "'nowhere'"),
        ("{symbols}", ["--ignore-case"], "--match"),
        ("TP53\tMYC", ["--match", "symbol", "--ignore-case"], "found none"),
        ("GENE1,up\tgene1,down", ["--match", "symbol", "--ignore-case"], "Gene1"),
    ],
)
def test_gene_sets_that_do_not_match_are_one_line_and_status_2(
    identifiers, command_here, tmp_path, genes, args, message
):
    folder, granule, _ = identifiers
    symbols = "\t".join(granule["symbol"])
    gmt = tmp_path / "sets.gmt"
    gmt.write_text("granule\tx\t" + genes.format(SYMBOLS=symbols.upper(), symbols=symbols) + "\n")
    done = command_here("run", folder / "counts.h5ad", "--gmt", gmt, "--out", tmp_path / "out", "--quiet", *args)
    assert done.returncode == 2, done.stderr[-3000:]
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("stcsm: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_gene_sets_that_are_not_there_are_named(identifiers, command_here, tmp_path):
    folder, _, _ = identifiers
    (tmp_path / "sets.gmt").write_text("granule\tx\tGene1\n")
    done = command_here("run", folder / "counts.h5ad", "--gmt", tmp_path / "set.gmx", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "Expected a GMT file, found nothing at" in done.stderr
    assert "sets.gmt" in done.stderr  # what stands near
    assert not (tmp_path / "out").exists()


def test_what_is_not_ours_is_never_replaced(counts, command_here, tmp_path):
    folder, marker, _ = counts
    (tmp_path / "out" / "model").mkdir(parents=True)
    thesis = tmp_path / "out" / "model" / "thesis.txt"
    thesis.write_text("mine")
    done = command_here(
        "run", folder / "counts.tsv", "--genes", f"g={marker}", "--out", tmp_path / "out", "--quiet"
    )  # fmt: skip
    assert done.returncode == 2
    assert "something else" in done.stderr
    assert thesis.read_text() == "mine"


@pytest.mark.parametrize("name", ["concept_map.csv", "sanity.json", "result.h5ad"])
def test_files_that_stcsm_has_not_written_are_never_replaced(counts, command_here, tmp_path, name):
    folder, marker, _ = counts
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    done = command_here("run", folder / "counts.tsv", "--genes", f"g={marker}", "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 2
    assert name in done.stderr
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_the_input_is_never_replaced(results, command_here):
    out = results / "one"
    before = (out / "result.h5ad").read_bytes()
    done = command_here("run", out / "result.h5ad", "--labels-key", "layer", "--out", out, "--quiet")
    assert done.returncode == 2
    assert "keep what is read" in done.stderr
    assert (out / "result.h5ad").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--method", "nonsense"], "--method to be one of"),
        (["--seed", "-1"], "seed"),
        (["--encoder", "conv3d"], "--encoder"),
        (["--genes", "Granular Cell Layer={marker}"], "rename"),
    ],
)
def test_settings_are_checked_before_the_training(counts, command_here, tmp_path, args, message):
    folder, marker, _ = counts
    args = [a.format(marker=marker) for a in args]
    done = command_here(
        "run", folder / "counts.tsv", "--labels", folder / "labels.csv", "--out", tmp_path / "out", *args
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Epoch" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_absent_file_and_unknown_option(command_here, tmp_path):
    for args in (["run", tmp_path / "no.tsv", "--genes", "a=b", "--out", tmp_path / "o"], ["run", "--nonsense"]):
        done = command_here(*args)
        assert done.returncode == 2
        assert done.stderr.strip().splitlines()[-1].startswith("stcsm: ")


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory):
    """Files that the command line refuses for reasons that an option mends."""
    folder = tmp_path_factory.mktemp("odd")
    a = stcsm.datasets.simulated_bulb(n_spots=60, n_genes=300, seed=1)
    a.var_names = [f"Gene{i}" for i in range(a.n_vars)]
    a.obs["half"] = np.where(a.obsm["spatial"][:, 0] > np.median(a.obsm["spatial"][:, 0]), "right", "left")
    a.layers["counts"] = a.X.copy()
    a.write_h5ad(folder / "tissue.h5ad")
    elsewhere = a.copy()
    elsewhere.obsm["X_spatial"] = elsewhere.obsm.pop("spatial")
    elsewhere.write_h5ad(folder / "elsewhere.h5ad")
    without = ad.AnnData(obs=a.obs, var=a.var, obsm={"spatial": a.obsm["spatial"]}, layers={"counts": a.X})
    without.write_h5ad(folder / "no_x.h5ad")
    a.obs[["layer", "half"]].to_csv(folder / "labels.csv")
    genes = [f"Gene{i}" for i in range(4)]
    table = pd.DataFrame(1, index=["1x1", "2x1", "2x1", "3x3"], columns=genes)
    table.to_csv(folder / "twice.tsv", sep="\t")
    (folder / "hd" / "binned_outputs" / "square_008um").mkdir(parents=True)
    (folder / "hd" / "binned_outputs" / "square_016um").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tissue.h5ad", "--layer", "absent"], "check --layer, or leave it out"),
        (["no_x.h5ad"], "name the layer that holds them: --layer NAME"),
        (["elsewhere.h5ad"], "name one of them with --spatial-key"),
        (["tissue.h5ad", "--batch-key", "absent"], "adata.obs['absent'], found the columns ['"),
        (["tissue.h5ad", "--bin-size", "8"], "for --bin-size 8, found neither"),
        (["tissue.h5ad", "--bin-size", "8"], "leave --bin-size out"),
        (["hd", "--bin-size", "4"], "--bin-size"),
        (["tissue.h5ad", "--labels", "labels.csv"], "choose one with --labels-column"),
        (["tissue.h5ad", "--labels", "labels.csv", "--labels-column", "layers"], "check --labels-column"),
        (["tissue.h5ad", "--labels-column", "layer"], "Expected --labels with --labels-column"),
        (["tissue.h5ad", "--groups", "left"], "give --labels CSV or --labels-key COLUMN"),
        (["tissue.h5ad", "--labels-key", "half", "--groups", "middle"], "'middle'"),
        (["tissue.h5ad", "--batch-key", "half", "--one-section"], "Expected --one-section or --batch-key, found both"),
        (["twice.tsv"], "in Python with stcsm.io.read_st(path, duplicates='sum') and write an .h5ad"),
        (["tissue.h5ad", "--method", "nonsense"], "Expected --method to be one of"),
        (["tissue.h5ad", "--encoder", "cnn"], "--encoder to be"),
        (["tissue.h5ad", "--resolution", "half"], "Expected --resolution to be 'auto', 'full' or the most features"),
        (
            ["tissue.h5ad", "--resolution", "20", "--encoder", "conv"],
            "Expected --resolution to be 'auto' or 'full' for",
        ),
    ],
)
def test_advice_works_in_the_shell(odd_files, command_here, tmp_path, args, says):
    args = [odd_files / arg if (odd_files / arg).exists() else arg for arg in args]
    done = command_here("run", *args, "--genes", "g=Gene1", "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.strip().splitlines()[-1]
    assert says in last
    left = [name for name in OPTIONS if re.search(rf"\b{name}=(?!'sum')", last)]
    assert not left, last
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("given", "resolution"), [([], "auto"), (["full"], "full"), (["5000"], 5000)])
def test_resolution_is_a_word_or_a_number(monkeypatch, tmp_path, given, resolution):
    asked = {}
    monkeypatch.setattr("stcsm.workflow.run_counts", lambda *args, **kwargs: asked.update(kwargs))
    options = ["--resolution", *given] if given else []
    done = CliRunner().invoke(app, ["run", "tissue.h5ad", "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 0, done.output
    assert asked["resolution"] == resolution
    assert type(asked["resolution"]) is type(resolution)


@pytest.mark.parametrize(
    ("said", "shell"),
    [
        ("pass batch_key='section'", "pass --batch-key section"),
        ("write it there or pass batch_key=None", "name one of them with --batch-key, or leave it out"),
        ('pass batch_key="my section", or', "pass --batch-key 'my section', or"),
        ("name it: GeneVAE.setup_anndata(adata, batch_key=...)", "name it: --batch-key COLUMN"),
        ("say stcsm.models.GeneVAE.setup_anndata(adata, one_section=True) if", "say --one-section if"),
        ("say setup_anndata(..., one_section=True)", "say --one-section"),
        ('take them with layer="raw".', "take them with --layer raw."),
        ('take larger bins, or encoder="mlp", which needs no grid', "take --encoder mlp, which needs no grid"),
        ("stcsm.io.read(..., keep_background=True) keeps them.", "--keep-background keeps them."),
        ("keep them with keep_background=True.", "keep them with --keep-background."),
        (
            "choose one of them with bin_size=, or give its folder",
            "choose one of them with --bin-size, or give its folder",
        ),
        ("take method='saliency' or", "take --method saliency or"),
        ("take fewer labels: groups=...", "take fewer labels: --groups LABEL"),
        ("the column is groupby=, or", "the column is --labels-key, or"),
        ("Expected n_seeds to be 1 or more", "Expected --n-seeds to be 1 or more"),
        (
            "in adata.obs['batch_key'] of /data/bin_size/n_seeds.csv",
            "in adata.obs['batch_key'] of /data/bin_size/n_seeds.csv",
        ),
        (
            "run stcsm.pp.to_grid(adata, bin_size=...) first",
            "run stcsm.pp.to_grid(adata, bin_size=...) first (in Python; then write an .h5ad and give it to stcsm run)",
        ),
        (
            "make them unique: adata.obs_names_make_unique()",
            "make them unique: adata.obs_names_make_unique() (in Python; then write an .h5ad and give it to stcsm run)",
        ),
        (
            "draw the image: library_id='V1 A' or library_id='B'",
            "draw the image: --library-id 'V1 A' or --library-id B",
        ),
        (
            "no column of adata.obs tells them apart, but their order does: join them as adata = "
            "anndata.concat([a, b], label='section', index_unique='-'), and pass batch_key='section'",
            "no column of adata.obs tells them apart, but their order does: give a file for each section "
            "(stcsm run A B)",
        ),
        (
            "but the ending of their names does: adata.obs['section'] = adata.obs_names.str.rsplit('-', n=1).str[-1], "
            "and pass batch_key='section', after stcsm.pp.to_grid(adata, batch_key='section'), or take one",
            "but the ending of their names does: give a file for each section (stcsm run A B), or take one",
        ),
        (
            "name the column: batch_key='run', after stcsm.pp.to_grid(adata, n_bins=15, batch_key='run'), then adata = "
            "stcsm.pp.bin_spots(adata), or take",
            "name the column: --batch-key run with --n-bins 15, or take",
        ),
        (
            "bring them onto one grid: stcsm.pp.to_grid(adata, n_bins=6, batch_key='section'), then adata = "
            "stcsm.pp.bin_spots(adata)",
            "bring them onto one grid: --n-bins 6",
        ),
        ("adata.raw holds counts: take them with layer='raw'", "adata.raw holds counts: take them with --layer raw"),
        ("two\n lines", "two lines"),
    ],
)
def test_messages_in_the_words_of_the_shell(said, shell):
    assert in_shell(said) == shell


def test_warnings_are_lines_in_the_words_of_the_shell(command_here, tmp_path, monkeypatch):
    def read(*_, **__):
        warnings.warn("5 spots are left out; stcsm.io.read(..., keep_background=True) keeps them.", stacklevel=2)
        logging.getLogger("stcsm.io").warning("choose with bin_size=.")
        raise ValueError("Expected counts, found none")

    monkeypatch.setattr(stcsm.io, "read", read)
    before = warnings.showwarning
    done = command_here("run", "counts.tsv", "--genes", "a=b", "--out", tmp_path / "out")
    assert done.stderr.splitlines() == [
        "stcsm: warning: 5 spots are left out; --keep-background keeps them.",
        "stcsm: warning: choose with --bin-size.",
        "stcsm: Expected counts, found none",
    ]
    assert warnings.showwarning is before


def test_labels_of_several_sections(odd_files, command_here, tmp_path, monkeypatch):
    """A file for each section in their order, or one with a column of sections; spots have their own files' names."""
    labels = pd.read_csv(odd_files / "labels.csv", index_col=0)["half"]
    opposite = labels.map({"left": "right", "right": "left"})
    for name, half in {"a": labels, "b": opposite}.items():
        half.to_csv(tmp_path / f"{name}_labels.csv")
        tissue = ad.read_h5ad(odd_files / "tissue.h5ad")
        tissue.obs = tissue.obs.drop(columns=["layer", "half"])
        tissue.write_h5ad(tmp_path / f"{name}.h5ad")
    both = pd.concat({"b": opposite, "a": labels}, names=["section", "spot"]).reset_index()
    both.to_csv(tmp_path / "both.csv", index=False)
    analysed = []
    monkeypatch.setattr("stcsm.workflow._run.analyse", lambda adata, *args, **settings: analysed.append(adata.obs))
    run = ["run", tmp_path / "a.h5ad", tmp_path / "b.h5ad", "--out", tmp_path / "out", "--quiet", "--labels"]
    of_each = [tmp_path / "a_labels.csv", "--labels", tmp_path / "b_labels.csv"]
    for given in (of_each, [tmp_path / "both.csv"]):
        done = command_here(*run, *given)
        assert done.returncode == 0, done.stderr
        assert analysed[-1]["layer"].tolist() == [*labels, *opposite]
    done = command_here(*run, tmp_path / "a_labels.csv")
    assert "give --labels once for each section, in their order, or name the section of each spot" in done.stderr
    done = command_here(*run, *of_each, "--labels", tmp_path / "both.csv")
    assert "Expected --labels once, or once for each of 2 sections, found it 3 times" in done.stderr


@pytest.mark.slow
def test_coordinates_labels_and_groups_are_those_that_options_name(odd_files, command_here, tmp_path):
    done = command_here(
        "run", odd_files / "elsewhere.h5ad", "--spatial-key", "X_spatial", "--layer", "counts", "--n-seeds", 1,
        "--labels", odd_files / "labels.csv", "--labels-column", "half", "--groups", "left", "--null", 0,
        "--out", tmp_path / "out", "--quiet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(pd.read_csv(tmp_path / "out" / "concept_map.csv", index_col="spot")) == ["left"]
    setup = ad.read_h5ad(tmp_path / "out" / "result.h5ad").uns["stcsm"]["setup"]
    assert {k: str(setup[k]) for k in ("spatial_key", "layer")} == {"spatial_key": "X_spatial", "layer": "counts"}


def test_sections_of_cells_are_added_up_in_bins(command_here, tmp_path, monkeypatch):
    """Cells of two sections have no positions in common; the bins that hold their counts and labels do."""
    rng, files = np.random.default_rng(0), []
    for name in "ab":
        a = ad.AnnData(rng.poisson(3.0, (200, 6)).astype(np.float32))
        a.obsm["X_spatial"] = rng.random((200, 2)) * 100
        a.obs["side"] = np.where(a.obsm["X_spatial"][:, 0] < 50, "left", "right")
        a.raw = a.copy()
        a.X = np.log1p(a.X)
        files.append(tmp_path / f"{name}.h5ad")
        a.write_h5ad(files[-1])
    given = {}
    monkeypatch.setattr("stcsm.workflow._run.analyse", lambda adata, *_, setup, **__: given.update(setup, adata=adata))
    options = ["--labels-key", "side", "--spatial-key", "X_spatial", "--layer", "raw", "--n-bins", "5"]
    done = command_here("run", *files, *options, "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 0, done.stderr
    bins = given["adata"]
    assert (given["layer"], given["spatial_key"], given["batch_key"]) == (None, "spatial", "section")
    assert bins.n_obs == 50
    assert bins.X.sum() == sum(ad.read_h5ad(file).raw.X.sum() for file in files)
    assert bins.obs["side"].eq("left").groupby(bins.obs["array_col"]).mean()[[0, 4]].tolist() == [1, 0]
    GeneVAE.setup_anndata(bins, batch_key="section")


@pytest.mark.slow
@pytest.mark.parametrize("given", ["folder", "files"])
def test_replicates_in_the_st_format_are_sections_of_one_analysis(command_here, tmp_path, given):
    """Two halves of the counts of one bulb, on a jittered array as ST files have it."""
    a = stcsm.datasets.simulated_bulb(n_spots=150, n_genes=300, seed=1)
    rng = np.random.default_rng(0)
    where = np.stack(np.unravel_index(np.arange(a.n_obs), (10, 15)), axis=1)
    a = a[np.lexsort((a.obsm["spatial"][:, 0], a.obsm["spatial"][:, 1]))]
    marker = a.var.query("layer == 'Granular Cell Layer'")["strength"].idxmax()
    counts = a.X.toarray().astype(int)
    first = rng.binomial(counts, 0.5)
    (tmp_path / "st").mkdir()
    for name, values in {"Rep1": first, "Rep2": counts - first}.items():
        xy = np.round(where + 5 + rng.uniform(-0.1, 0.1, where.shape), 3)
        table = pd.DataFrame(values, index=[f"{x}x{y}" for x, y in xy], columns=a.var_names)
        table.to_csv(tmp_path / "st" / f"{name}_MOB_count_matrix-1.tsv", sep="\t")
    paths = [tmp_path / "st"] if given == "folder" else sorted((tmp_path / "st").iterdir())
    done = command_here(
        "run", *paths, "--genes", f"g={marker}", "--n-seeds", 1, "--null", 0, "--out", tmp_path / "out", "--quiet"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert result.uns["stcsm"]["setup"]["batch_key"] == "section"
    names = ["Rep1", "Rep2"] if given == "folder" else ["Rep1_MOB_count_matrix-1", "Rep2_MOB_count_matrix-1"]
    assert list(result.obs["section"].unique()) == names
    assert list(pd.read_csv(tmp_path / "out" / "concept_map.csv")["spot"]) == list(result.obs_names)
    with Image.open(tmp_path / "out" / "concept_maps.png") as drawn:
        assert drawn.height > drawn.width  # one below the other


def test_a_run_takes_raw_counts_background_controls_and_one_section_where_told_to(command_here, tmp_path, monkeypatch):
    """Each of the options is asked for by name where it is needed, and with all of them the run ends."""
    a = stcsm.datasets.simulated_bulb(n_spots=60, n_genes=300, seed=1)
    a.obsm["spatial"] = a.obsm["spatial"] / np.ptp(a.obsm["spatial"], axis=0).max() * 90 + 5
    b = a.copy()
    b.obsm["spatial"] = b.obsm["spatial"] + 0.1
    a = ad.concat({"a": a, "b": b}, label="sample", index_unique="-")
    a.var_names = [*(f"Gene{i}" for i in range(a.n_vars - 1)), "NegControlProbe_00042"]
    a.obs["in_tissue"] = np.where(np.arange(a.n_obs) < 3, 0, 1)
    a.raw = a.copy()
    a.X = np.log1p(a.X.toarray())
    a.uns["spatial"] = {
        "V1": {
            "images": {"hires": np.full((100, 100, 3), (0, 255, 0), np.uint8)},
            "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 4.0},
        }
    }
    a.write_h5ad(tmp_path / "a.h5ad")
    train = GeneVAE.train
    monkeypatch.setattr(GeneVAE, "train", lambda model, **kwargs: train(model, max_epochs=1, **kwargs))
    command = ["run", tmp_path / "a.h5ad", "--genes", "g=Gene1,Gene2", "--null", 0, "--n-seeds", 1, "--quiet"]
    command += ["--out", tmp_path / "out"]
    for more in (["--layer", "raw"], ["--one-section"], ["--library-id", "V1"]):
        done = command_here(*command)
        assert done.returncode == (0 if more[0] == "--library-id" else 2)
        assert more[0] in done.stderr
        command += more
        if done.returncode == 0:
            assert "3 of 120 spots lie beside the tissue" in done.stderr
            assert "(--keep-background takes them)" in done.stderr
            assert "(--keep-controls takes them)" in done.stderr
            assert pd.read_csv(tmp_path / "out" / "concept_map.csv")["g"].isna().sum() == 3
    done = command_here(*command, "--keep-background", "--keep-controls")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    assert "no image is drawn" not in done.stderr
    result = ad.read_h5ad(tmp_path / "out" / "result.h5ad")
    assert result.obsm["concept_map"]["g"].notna().all()
    assert np.isfinite(result.varm["X_stcsm"][result.var_names.get_loc("NegControlProbe_00042")]).all()
    assert str(result.uns["stcsm"]["setup"]["layer"]) == "raw"
    with Image.open(tmp_path / "out" / "concept_maps.png") as drawn:
        red, green, blue = np.moveaxis(np.asarray(drawn.convert("RGB")).astype(int), 2, 0)
        assert ((green == 255) & (red == blue) & (red < 128)).mean() > 0.1  # the faded image
