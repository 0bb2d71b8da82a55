"""The published model: its architecture, its loss, its grid, how it trains."""

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
import torch
from scipy import sparse

from stcsm import datasets, tl
from stcsm.models import GeneVAE, PublishedVAE, published_cells


@pytest.fixture
def bulb() -> ad.AnnData:
    """ST array of 16 x 21 jittered spots with 70 genes; three spots and one gene without counts."""
    rng = np.random.default_rng(1)
    y, x = (v.ravel() for v in np.meshgrid(range(9, 25), range(8, 29), indexing="ij"))
    counts = rng.poisson(1.0, size=(len(x), 70)).astype(np.float32)
    counts[:, 4] = 0
    counts[[3, 10, 50]] = 0
    a = ad.AnnData(sparse.csr_matrix(counts))
    a.obs_names = [f"s{i}" for i in range(len(x))]
    a.var_names = [f"g{i}" for i in range(70)]
    a.obsm["spatial_array"] = np.column_stack([x, y]) + rng.uniform(-0.2, 0.2, size=(len(x), 2))
    a.obsm["spatial"] = a.obsm["spatial_array"] * 300
    return a


def test_number_of_parameters_is_the_published(bulb):
    member = GeneVAE.published(bulb).module.member(0)
    conv = 4 * 4 * (1 * 16 + 16 * 32 + 32 * 64) + 16 + 32 + 64
    dense = 1024 * 256 + 256 + 256 * 256 + 256 + 2 * (256 * 20 + 20)
    up = 20 * 1024 + 1024 + 4 * 4 * (64 * 64 + 64 * 32 + 32 * 16 + 16 * 1) + 64 + 32 + 16 + 1
    norms = 2 * (16 + 32 + 64 + 256 + 256 + 64 + 64 + 32 + 16)
    assert sum(p.numel() for p in member.parameters()) == conv + dense + up + norms


def test_inputs_are_published_images(bulb):
    model = GeneVAE.published(bulb)
    images = model.inputs(["g0", "g4"]).numpy()
    assert images.shape == (2, 1, 32, 32)
    column = bulb.X.toarray()[:, 0]
    expected = np.zeros((32, 32))
    for (x, y), value in zip(bulb.obsm["spatial_array"], column, strict=True):
        expected[int(y + 0.5), int(x + 0.5) - 1] = value / column.max()
    np.testing.assert_allclose(images[0, 0], expected, rtol=1e-6)
    assert not images[1].any()
    assert np.isnan(model.get_latent_representation()[4]).all()


def test_loss_is_the_published_formula(bulb):
    model = GeneVAE.published(bulb)
    module = model.module.train()
    module.reset_noise()
    counts = torch.from_numpy(model.reader.profiles(np.array([0, 1, 2])))
    _, _, out = module({"counts": counts, "totals": counts.sum(dim=1, keepdim=True)})
    images = model.inputs([0, 1, 2])
    module.train()  # reading the inputs leaves it so; batch statistics are those of the batch
    mean, log_var = module.member(0).encoder.posterior(images)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    p = torch.sigmoid(module.member(0).decoder(mean + log_var.exp() * noise)).double()
    x = images.double()
    cross_entropy = -(x * p.log() + (1 - x) * (1 - p).log()).mean()
    expected = cross_entropy - 0.5e-4 * (1 + log_var - mean**2 - log_var.exp()).mean()
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_initial_weights_are_keras(bulb):
    encoder = GeneVAE.published(bulb).module.member(0).encoder
    dense = encoder.mean.weight
    bound = np.sqrt(6 / (256 + 20))
    assert dense.abs().max() <= bound
    assert dense.abs().max() > 0.99 * bound
    for module in encoder.modules():
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any()


@pytest.mark.slow
def test_optimizer_and_length_are_published(bulb):
    model = GeneVAE.published(bulb)
    model.train(progress=False)
    loss = model.history["train_loss"].iloc[:, 0].astype(float).to_numpy()
    assert len(loss) == 10
    assert loss[-1] < loss[0]
    group = model.trainer.optimizers[0].defaults
    assert (group["lr"], group["eps"], group["betas"], group["weight_decay"]) == (5e-4, 1e-7, (0.9, 0.999), 0)
    norm = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


def test_same_seed_same_numbers_and_saved_as_itself(bulb, tmp_path):
    first, second, other = GeneVAE.published(bulb), GeneVAE.published(bulb), GeneVAE.published(bulb, seed=1)
    for model in (first, second, other):
        model.train(max_epochs=1, progress=False)
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())
    assert first.fingerprint() != other.fingerprint()
    first.save(tmp_path / "m")
    again = GeneVAE.load(tmp_path / "m", bulb)
    assert isinstance(again, PublishedVAE)
    np.testing.assert_array_equal(first.get_latent_representation(), again.get_latent_representation())
    np.testing.assert_array_equal(first.sampled_latents(3), again.sampled_latents(3))


def test_training_goes_on_after_a_look_at_the_latents(bulb):
    model = GeneVAE.published(bulb)
    model.train(max_epochs=1, progress=False)
    norm = next(m for m in model.encoder.modules() if isinstance(m, torch.nn.BatchNorm2d))
    model.get_latent_representation()
    before = norm.running_mean.clone()
    model.train(max_epochs=1, progress=False)
    assert (norm.running_mean != before).any()  # batch statistics and noise are those of a training, not frozen
    assert not norm.training


@pytest.mark.slow
def test_draws_have_the_published_deviation(bulb):
    model = GeneVAE.published(bulb)
    mean, var = model.get_latent_representation(give_var=True)
    _, log_var = model.encoder.posterior(model.inputs([0]))
    np.testing.assert_allclose(np.sqrt(var[0]), log_var.exp().detach().numpy()[0], rtol=1e-4)
    draws = np.stack([model.sampled_latents(seed)[0] for seed in range(400)])
    np.testing.assert_allclose((draws - mean[0]).std(axis=0) / np.sqrt(var[0]), 1, atol=0.15)


def test_published_grid_of_replicate_11(data_dir, golden_dir):
    adata = datasets.mouse_olfactory_bulb(11, path=data_dir / "mob")
    with np.load(golden_dir / "st_reference_seed0.npz", allow_pickle=False) as held:
        expected = dict(zip(held["spots"], held["grid_y"] * 32 + held["grid_x"], strict=True))
    cells = published_cells(adata, np.arange(adata.n_obs))
    assert dict(zip(adata.obs_names, cells, strict=True)) == expected


def test_concepts_maps_and_images(bulb):
    model = GeneVAE.published(bulb)
    model.train(max_epochs=2, progress=False)
    tl.published_concepts(bulb, model, ["g1", "g2"], n=8)
    record = bulb.uns["stcsm"]["concepts"]["g1"]
    assert record["genes"][0] == "g1"
    assert len(record["genes"]) == 8
    z = bulb.varm["X_stcsm"]
    np.testing.assert_allclose(
        record["vectors"][0], z[bulb.var_names.get_indexer(record["genes"])].mean(axis=0), rtol=1e-4, atol=1e-6
    )
    r = np.nan_to_num([np.corrcoef(z[1], row)[0, 1] for row in z], nan=-2)
    # Genes of a model that has seen little are alike: those at the rim may swap.
    assert r[bulb.var_names.get_indexer(record["genes"])].min() >= np.sort(r)[-8] - 1e-6
    tl.saliency(bulb, model, method="rectgrad", genes="concept", published=True)
    tl.decoded(bulb, model, contrast=False)
    tl.mean_expression(bulb)
    for key in ("concept_saliency", "concept_decoded", "concept_expression"):
        assert bulb.obsm[key].shape == (bulb.n_obs, 2)
        assert bulb.obsm[key].iloc[3].isna().all() or key == "concept_expression"
    images = model.decode_images(record["vectors"][:1])
    cells = published_cells(bulb, model.spots)
    np.testing.assert_allclose(
        bulb.obsm["concept_decoded"]["g1"].to_numpy()[model.spots], images[0].ravel()[cells], rtol=1e-4
    )
    scaled = bulb.X.toarray() / np.maximum(bulb.X.toarray().max(axis=0), 1)
    np.testing.assert_allclose(
        bulb.obsm["concept_expression"]["g2"],
        scaled[:, bulb.var_names.get_indexer(bulb.uns["stcsm"]["concepts"]["g2"]["genes"])].mean(axis=1),
        rtol=1e-5,
    )


def test_sampled_concepts_differ_with_the_draw(bulb):
    model = GeneVAE.published(bulb)
    model.train(max_epochs=1, progress=False)
    vectors = []
    for seed in (0, 0, 1):
        tl.published_concepts(bulb, model, ["g1"], n=8, sampled=True, seed=seed)
        vectors.append(bulb.uns["stcsm"]["concepts"]["g1"]["vectors"])
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: a.obsm.pop("spatial_array"), "array coordinates"),
        (lambda a: a.obsm.__setitem__("spatial_array", a.obsm["spatial_array"] * 3), "32 x 32"),
        (lambda a: a.obsm.__setitem__("spatial_array", a.obsm["spatial_array"] * np.nan), "finite"),
        (lambda a: a.obsm.__setitem__("spatial_array", np.zeros((a.n_obs, 3))), "two finite"),
    ],
)
def test_spots_that_do_not_fit_are_refused(bulb, spoil, message):
    spoil(bulb)
    with pytest.raises(ValueError, match=message):
        GeneVAE.published(bulb)


def test_tissue_beyond_the_grid_is_shifted_into_it(bulb):
    bulb.obsm["spatial_array"] = bulb.obsm["spatial_array"] - [8, 9]
    cells = published_cells(bulb, np.arange(bulb.n_obs))
    assert len(np.unique(cells)) == bulb.n_obs
    assert cells.min() >= 0
    assert cells.max() < 1024


def test_two_spots_on_one_cell_are_added_up(bulb):
    bulb.obsm["spatial_array"][1] = bulb.obsm["spatial_array"][0]
    model = GeneVAE.published(bulb)
    x = bulb.X.toarray()[:, 2].copy()
    x[0] += x[1]
    x[1] = 0
    images = model.inputs(["g2"]).numpy()
    assert images.sum() == pytest.approx(x.sum() / x.max(), rel=1e-5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.pop("enc__dense_3__bias"), "enc__dense_3__bias"),
        (lambda w: w.update(dec__dense_4__kernel=np.zeros((19, 1024), np.float32)), "shape"),
        (lambda w: w["enc__conv2d__kernel"].fill(np.nan), "finite"),
    ],
)
def test_damaged_weights_change_nothing(bulb, golden_dir, tmp_path, spoil, message):
    with np.load(golden_dir / "st_weights_seed0.npz", allow_pickle=False) as held:
        weights = dict(held)
    spoil(weights)
    np.savez(tmp_path / "w.npz", **weights)
    model = GeneVAE.published(bulb)
    before = model.fingerprint()
    with pytest.raises(ValueError, match=message):
        model.load_published_weights(tmp_path / "w.npz")
    assert model.fingerprint() == before
    assert not model.is_trained


def test_weights_that_are_no_archive_are_refused(bulb, tmp_path):
    model = GeneVAE.published(bulb)
    with pytest.raises(FileNotFoundError, match="weights"):
        model.load_published_weights(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="archive"):
        model.load_published_weights(tmp_path / "text.npz")


@pytest.fixture(scope="module")
def weights(golden_dir):
    with np.load(golden_dir / "st_weights_seed0.npz", allow_pickle=False) as held:
        return dict(held)


def keras_file(path, weights, *, nested=("dec",), whole=False, first=7):
    """The file that Keras 2 writes for an encoder and a decoder, the halves in `nested` as models of their own."""
    halves: dict[str, dict[str, dict[str, np.ndarray]]] = {"enc": {}, "dec": {}}
    for key, array in weights.items():
        half, layer, role = key.split("__")
        base, _, number = layer.rpartition("_") if layer[-1].isdigit() and layer != "conv2d" else (layer, "", "0")
        # numbers continue from what the process had built before
        halves[half].setdefault(f"{base}_{int(number) + first}", {})[role] = array
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        listed = ["input_1"]
        root.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for n, (half, layers) in enumerate(halves.items()):
            order = sorted(layers, key=layer_order(half, layers))
            groups = {f"model_{n + 3}": order} if half in nested else {name: [name] for name in order}
            for group_name, members in groups.items():
                arrays = [(f"{name}/{role}:0", a) for name in members for role, a in layers[name].items()]
                # a nested model lists what is trained first, and all moving averages after that
                arrays.sort(key=lambda item: "moving" in item[0])
                group = root.create_group(group_name)
                group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
                for name, array in arrays:
                    group.create_dataset(name, data=array)
            listed += groups
        root.attrs["layer_names"] = [name.encode() for name in listed]
    return path


def layer_order(half, layers):
    """Layers in the order in which the published code builds them: conv and norm in turn, then dense."""
    by_kind: dict[str, list[str]] = {}
    for name in layers:
        by_kind.setdefault(name.rpartition("_")[0], []).append(name)
    conv, norm, dense, transposed = (
        sorted(by_kind.get(kind, []), key=lambda name: int(name.rpartition("_")[2]))
        for kind in ("conv2d", "batch_normalization", "dense", "conv2d_transpose")
    )
    if half == "enc":
        turns = [name for pair in zip(conv + dense[:2], norm, strict=True) for name in pair] + dense[2:]
    else:
        turns = [dense[0], norm[0], *(n for pair in zip(transposed, norm[1:], strict=True) for n in pair), conv[0]]
    return turns.index


@pytest.mark.parametrize("nested", [(), ("dec",), ("enc", "dec")])
@pytest.mark.parametrize("whole", [False, True])
def test_the_keras_file_gives_the_latents_and_images_of_the_archive(bulb, golden_dir, weights, tmp_path, nested, whole):
    one, two = GeneVAE.published(bulb, seed=0), GeneVAE.published(bulb, seed=1)
    one.load_published_weights(golden_dir / "st_weights_seed0.npz")
    two.load_published_weights(keras_file(tmp_path / "vae.hdf5", weights, nested=nested, whole=whole))
    assert two.is_trained
    z = one.get_latent_representation()
    np.testing.assert_allclose(two.get_latent_representation(), z, atol=1e-6, equal_nan=True)
    drawn = np.nan_to_num(z[:2])
    np.testing.assert_allclose(two.decode_images(drawn), one.decode_images(drawn), atol=1e-6)


def without_a_layer(file):
    del file["conv2d_8"]


def without_an_array(file):
    del file["conv2d_8/conv2d_8/bias:0"]


def not_a_number(file):
    file["model_4/conv2d_10/bias:0"][0] = np.nan  # the last one that is read


def another_shape(file):
    del file["model_4/conv2d_10/kernel:0"]
    file["model_4/conv2d_10/kernel:0"] = np.zeros((5, 5, 16, 1), np.float32)


def text_for_numbers(file):
    del file["conv2d_8/conv2d_8/bias:0"]
    file["conv2d_8/conv2d_8/bias:0"] = np.array([b"x"] * 32)


def fewer_layers(file):
    file.attrs["layer_names"] = file.attrs["layer_names"][:-1]


def another_file(file):
    del file.attrs["layer_names"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without_a_layer, "layer 'conv2d_8' .*is the file complete"),
        (without_an_array, "bias:0' .*is the file complete"),
        (not_a_number, "finite weights, found NaN or infinity in conv2d_10/bias"),
        (another_shape, r"conv2d_10/kernel to fit decoder\.layers.*found \(1, 16, 5, 5\)"),
        (text_for_numbers, "is the file complete"),
        (fewer_layers, "found 5: .*give the weights of the published model"),
        (another_file, "attribute 'layer_names'"),
    ],
)
def test_damaged_keras_files_change_nothing(bulb, weights, tmp_path, spoil, message):
    path = keras_file(tmp_path / "vae.hdf5", weights)
    with h5py.File(path, "a") as file:
        spoil(file)
    model = GeneVAE.published(bulb)
    before = model.fingerprint()
    with pytest.raises(ValueError, match=message):
        model.load_published_weights(path)
    assert model.fingerprint() == before
    assert not model.is_trained


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.99])
def test_a_keras_file_that_is_cut_short_is_refused(bulb, weights, tmp_path, share):
    path = keras_file(tmp_path / "vae.hdf5", weights)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    model = GeneVAE.published(bulb)
    before = model.fingerprint()
    with pytest.raises(ValueError, match="found another or a damaged one"):
        model.load_published_weights(path)
    assert model.fingerprint() == before


def test_a_last_batch_of_one_gene_is_trained_on(bulb):
    model = GeneVAE.published(bulb)
    assert len(model.trained_genes) % 17 == 1
    model.train(max_epochs=1, batch_size=17, progress=False, accelerator="cpu")
    assert np.isfinite(model.get_latent_representation()[0]).all()


@pytest.mark.parametrize("name", ["weight_decay", "kl_warmup", "optimizer"])
def test_what_is_published_cannot_be_set(bulb, name):
    with pytest.raises(ValueError, match=f"plan_kwargs without '{name}'"):
        GeneVAE.published(bulb).train(plan_kwargs={name: 0.1})
