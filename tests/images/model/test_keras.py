"""A checkpoint in the published layout, written by this test, and its outputs computed with numpy alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from stcsm.images import Architecture, ImageVAE, fetch_pretrained, load_keras_weights

ARCH = Architecture(8, (4, 6), (5, 2), 5, 7, 3)  # kernels as published: 5, ..., 2, and 5 at the end
EPS = 1e-3


class Keras:
    """The network by TensorFlow's definitions, in loops, and the arrays that Keras would hold."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.encoder: list[tuple[str, dict[str, np.ndarray]]] = []
        self.decoder: list[tuple[str, dict[str, np.ndarray]]] = []

        def weights(*shape: int) -> dict[str, np.ndarray]:
            return {"kernel": 0.4 * rng.standard_normal(shape), "bias": 0.1 * rng.standard_normal(shape[-1])}

        def norm(n: int) -> dict[str, np.ndarray]:
            values = {"gamma": rng.uniform(0.5, 1.5, n), "beta": rng.normal(size=n), "moving_mean": rng.normal(size=n)}
            return values | {"moving_variance": rng.uniform(0.5, 2, n)}

        # numbers continue from what the process had built before
        e, d = self.encoder, self.decoder
        e += [("conv2d_7", weights(5, 5, 3, 4)), ("batch_normalization_9", norm(4))]
        e += [("conv2d_8", weights(2, 2, 4, 6)), ("batch_normalization_10", norm(6))]
        e += [("dense_3", weights(24, 7)), ("batch_normalization_11", norm(7))]
        e += [("dense_4", weights(7, 3)), ("dense_5", weights(7, 3))]
        d += [("dense_6", weights(3, 24)), ("batch_normalization_12", norm(6))]
        for k, (size, before, after) in enumerate([(2, 6, 6), (5, 6, 4)]):
            kernel = 0.4 * rng.standard_normal((size, size, after, before))
            layer = {"kernel": kernel, "bias": 0.1 * rng.standard_normal(after)}
            d += [(f"conv2d_transpose_{k + 3}", layer), (f"batch_normalization_{k + 13}", norm(after))]
        d.append(("conv2d_9", weights(5, 5, 4, 3)))

    def write(self, path: Path, nested: str = "model_5") -> None:
        with h5py.File(path, "w") as file:
            layers = ["input_1", *(name for name, _ in self.encoder[:2]), "activation_1"]
            layers += [*(name for name, _ in self.encoder[2:]), "lambda_1", nested]
            file.attrs["layer_names"] = [name.encode() for name in layers]
            file.attrs["backend"] = b"tensorflow"
            for name in layers:
                group, arrays = file.create_group(name), dict(self.encoder).get(name, {})
                self._fill(group, [(f"{name}/{role}:0", a) for role, a in arrays.items()])
            # a nested model lists what is trained first, and all moving averages after that
            whole = [(f"{name}/{role}:0", a) for name, arrays in self.decoder for role, a in arrays.items()]
            fixed = [item for item in whole if "moving" in item[0]]
            del file[nested]
            self._fill(file.create_group(nested), [item for item in whole if "moving" not in item[0]] + fixed)

    @staticmethod
    def _fill(group: h5py.Group, arrays: list[tuple[str, np.ndarray]]) -> None:
        group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
        for name, array in arrays:
            group.create_dataset(name, data=array.astype(np.float32))

    # ------------------------------------------------ the same by hand: (height, width, channel), one image

    @staticmethod
    def _conv(x: np.ndarray, layer: dict[str, np.ndarray], stride: int) -> np.ndarray:
        kernel, h = layer["kernel"], x.shape[0]
        size, out = kernel.shape[0], -(-h // stride)
        total = max((out - 1) * stride + size - h, 0)
        padded = np.pad(x, [(total // 2, total - total // 2)] * 2 + [(0, 0)])
        y = np.zeros((out, out, kernel.shape[3]))
        for i in range(out):
            for j in range(out):
                patch = padded[i * stride : i * stride + size, j * stride : j * stride + size]
                y[i, j] = np.tensordot(patch, kernel, 3) + layer["bias"]
        return y

    @staticmethod
    def _transposed(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
        kernel, n = layer["kernel"], 2 * x.shape[0]
        size = kernel.shape[0]
        total = max((x.shape[0] - 1) * 2 + size - n, 0)  # padding of the convolution that this transposes
        y = np.zeros((n + total, n + total, kernel.shape[2]))
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                y[2 * i : 2 * i + size, 2 * j : 2 * j + size] += kernel @ x[i, j]
        first = total // 2
        return y[first : first + n, first : first + n] + layer["bias"]

    @staticmethod
    def _norm(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
        centred = (x - layer["moving_mean"]) / np.sqrt(layer["moving_variance"] + EPS)
        return layer["gamma"] * centred + layer["beta"]

    def encode(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layers = [layer for _, layer in self.encoder]
        for k in (0, 2):
            x = self._norm(np.maximum(self._conv(x, layers[k], 2), 0), layers[k + 1])
        x = np.maximum(x.reshape(-1) @ layers[4]["kernel"] + layers[4]["bias"], 0)
        x = self._norm(x, layers[5])
        mean, log_var = (x @ layers[k]["kernel"] + layers[k]["bias"] for k in (6, 7))
        return mean, log_var

    def decode(self, z: np.ndarray) -> np.ndarray:
        layers = [layer for _, layer in self.decoder]
        x = np.maximum(z @ layers[0]["kernel"] + layers[0]["bias"], 0).reshape(2, 2, 6)
        x = self._norm(x, layers[1])
        for k in (2, 4):
            x = self._norm(np.maximum(self._transposed(x, layers[k]), 0), layers[k + 1])
        return 1 / (1 + np.exp(-self._conv(x, layers[6], 1)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    Keras().write(tmp_path / "vae.hdf5")
    return tmp_path / "vae.hdf5"


def test_outputs_are_those_of_the_file(file: Path) -> None:
    model, keras = load_keras_weights(file, ARCH), Keras()
    assert not model.training
    pixels = np.random.default_rng(1).random((3, 8, 8, 3))
    with torch.no_grad():
        mean, log_var = model.posterior(torch.from_numpy(pixels).float().permute(0, 3, 1, 2))
        drawn = model.decode(mean).permute(0, 2, 3, 1).numpy()
    for k in range(3):
        wanted_mean, wanted_log_var = keras.encode(pixels[k])
        np.testing.assert_allclose(mean[k], wanted_mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(log_var[k], wanted_log_var, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(drawn[k], keras.decode(mean[k].double().numpy()), rtol=1e-3, atol=1e-4)


def test_whole_model_file_of_keras_save(tmp_path: Path, file: Path) -> None:
    with h5py.File(file) as source, h5py.File(tmp_path / "whole.h5", "w") as whole:
        group = whole.create_group("model_weights")
        for name in source:
            source.copy(name, group)
        group.attrs["layer_names"] = source.attrs["layer_names"]
    one, two = load_keras_weights(file, ARCH), load_keras_weights(tmp_path / "whole.h5", ARCH)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_files_that_do_not_fit_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected 12 Keras layers of kind 'norm' .*found 6"):
        load_keras_weights(file)  # as published
    with pytest.raises(ValueError, match=r"to fit .*found .*pass the Architecture"):
        load_keras_weights(file, Architecture(8, (4, 6), (5, 2), 5, 7, 4))
    with pytest.raises(FileNotFoundError, match="Expected a weights file"):
        load_keras_weights(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("no weights")
    with pytest.raises(ValueError, match="Expected an HDF5 file"):
        load_keras_weights(tmp_path / "text.h5")
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(ValueError, match="Expected the attribute 'layer_names'"):
        load_keras_weights(tmp_path / "empty.h5")
    with h5py.File(file, "a") as damaged:
        damaged["conv2d_7/conv2d_7/bias:0"][0] = np.nan
    with pytest.raises(ValueError, match=r"finite weights, found NaN or infinity in conv2d_7/bias"):
        load_keras_weights(file, ARCH)
    with h5py.File(file, "a") as damaged:
        del damaged["conv2d_7/conv2d_7/bias:0"]
    with pytest.raises(ValueError, match="is the file complete"):
        load_keras_weights(file, ARCH)


def test_files_of_other_versions_of_keras_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "three.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((5, 5, 3, 4))
    with pytest.raises(ValueError, match=r"found weights as Keras 3 saves them .*model.save\('model.h5'\)"):
        load_keras_weights(tmp_path / "three.weights.h5", ARCH)
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense_1"]
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1_W"]
        group["dense_1_W"] = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"found 'dense_1_W' in .*as of Keras 1; load it in Keras 2"):
        load_keras_weights(tmp_path / "one.h5", ARCH)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(file: Path) -> Iterator[str]:
    (file.parent / "page.hdf5").write_text("<html>moved</html>")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(file.parent))) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_fetched_once_and_kept(server: str, file: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    model = fetch_pretrained(f"{server}/vae.hdf5", path=cache, architecture=ARCH, progress=False)
    wanted = load_keras_weights(file, ARCH)
    assert isinstance(model, ImageVAE)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), wanted.parameters(), strict=True))
    file.unlink()  # the second call needs no server
    fetch_pretrained(f"{server}/vae.hdf5", path=cache, architecture=ARCH, progress=False)


def test_what_cannot_be_had_or_is_another_file(server: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(ValueError, match="known_hash"):
        fetch_pretrained(f"{server}/vae.hdf5", "sha256:" + "0" * 64, path=cache, progress=False)
    with pytest.raises(FileNotFoundError, match="found no way to download it"):
        fetch_pretrained(f"{server}/absent.hdf5", path=cache, progress=False)
    with pytest.raises(ValueError, match="perhaps a web page"):
        fetch_pretrained(f"{server}/page.hdf5", path=cache, progress=False)
    assert not list(cache.rglob("*.hdf5"))
