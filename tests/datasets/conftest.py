"""A web server on this machine that stands in for the official address."""

from __future__ import annotations

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

N_SPOTS, N_GENES = 12, 30


class _Handler(SimpleHTTPRequestHandler):
    asked: list[str]
    cut: set[str]

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.asked.append(name)
        if name in self.cut:  # the connection breaks half way
            data = (Path(self.directory) / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            return
        super().do_GET()

    def log_message(self, *args):
        pass


class Server:
    """Where it is, what it holds, what was asked of it."""

    def __init__(self, folder: Path):
        self.folder, self.asked, self.cut = folder, [], set()
        handler = type("Handler", (_Handler,), {"asked": self.asked, "cut": self.cut})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/"

    def hold(self, replicate: int, image: str, transformation: str) -> None:
        """Put a small replicate on the server."""
        spots = [f"{x}.1x{y}.2" for x in range(3, 7) for y in range(4, 7)]
        counts = np.random.default_rng(replicate).poisson(2, (N_SPOTS, N_GENES))
        lines = ["\t".join(["", *(f"Gene{i}" for i in range(N_GENES))])]
        lines += ["\t".join([spot, *map(str, row)]) for spot, row in zip(spots, counts, strict=True)]
        (self.folder / f"Rep{replicate}_MOB_count_matrix-1.tsv").write_text("\n".join(lines) + "\n")
        Image.new("RGB", (400, 300), "pink").save(self.folder / image)
        (self.folder / transformation).write_text("40 0 0 0 40 0 0 0 1\n")

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    yield running
    running.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder of data of the user's."""
    import pooch

    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("STCSM_DATA_DIR", raising=False)
    monkeypatch.delenv("STCSM_MOB_URL", raising=False)
    return tmp_path / "cache" / "stcsm" / "mob"
