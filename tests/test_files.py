"""Files and folders that appear whole or not at all; text files as people have them."""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stcsm._files import replace_all, text_lines, whole_file, whole_folder, write_model


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path):
    out = tmp_path / "deep" / "out"
    for text in ("one", "two"):
        with whole_folder(out) as scratch:
            (scratch / f"{text}.txt").write_text(text)
    assert [p.name for p in out.iterdir()] == ["two.txt"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755


def test_after_an_error_the_old_one_stands_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    with whole_folder(out) as scratch:
        (scratch / "old.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_folder(out) as scratch:  # noqa: PT012
        (scratch / "new.txt").write_text("new")
        raise KeyboardInterrupt
    assert [p.name for p in out.iterdir()] == ["old.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_old_one_stands_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with whole_folder(out) as scratch:
        (scratch / "old.txt").write_text("old")
    replace = os.replace

    def refused(source, target):
        if Path(target) == out and (Path(source) / "new.txt").exists():
            raise PermissionError("in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError), whole_folder(out) as scratch:
        (scratch / "new.txt").write_text("new")
    assert [p.name for p in out.iterdir()] == ["old.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_stays_one_and_a_file_is_left_as_it_is(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    with whole_folder(tmp_path / "link") as scratch:
        (scratch / "new.txt").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert [p.name for p in (tmp_path / "real").iterdir()] == ["new.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="found a file"), whole_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link", "real"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    for text in ("one", "two"):
        with whole_file(path) as scratch:
            scratch.write_text(text)
            assert not path.exists() or path.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), whole_file(path) as scratch:  # noqa: PT012
        scratch.write_text("three")
        raise KeyboardInterrupt
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("zipped", [False, True])
def test_lines_have_the_numbers_that_an_editor_shows(tmp_path, zipped):
    path = tmp_path / "no_suffix"
    content = "\ufeffone\r\n \r\n\tth\u00e9 third\t\n\nfive\rsix".encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert list(text_lines(path)) == [(1, "one"), (3, "\tth\u00e9 third\t"), (5, "five"), (6, "six")]
    content += b"\nse\xe9ven\n"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=r"found other bytes in line 7 of .*no_suffix"):
        list(text_lines(path))


def test_readers_of_text_do_without_torch():
    code = "import sys, stcsm.concepts, stcsm.io; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize("fails_at", range(1, 7))
def test_a_move_that_is_interrupted_leaves_everything_as_it_was(tmp_path, monkeypatch, fails_at):
    """Three names: a file with a successor, a folder with one, a file without."""
    folder, scratch = tmp_path / "out", tmp_path / "scratch"
    for place, text in ((folder, "old"), (scratch, "new")):
        (place / "model").mkdir(parents=True)
        (place / "model" / "weights").write_text(text)
        (place / "map").write_text(text)
    (folder / "significance").write_text("old")
    (scratch / "sanity").write_text("new")
    names, calls, move = ("map", "significance", "model", "sanity"), [], os.replace

    def breaking(source, target):
        calls.append(source)
        if len(calls) == fails_at:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", breaking)
    with pytest.raises(KeyboardInterrupt):
        replace_all(names, scratch, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["map", "model", "significance"]
    for path in (folder / "map", folder / "significance", folder / "model" / "weights"):
        assert path.read_text() == "old"
    replace_all(names, scratch, folder)
    assert sorted(p.name for p in folder.iterdir()) == ["map", "model", "sanity"]
    for path in (folder / "map", folder / "sanity", folder / "model" / "weights"):
        assert path.read_text() == "new"


def test_a_file_is_replaced_only_when_the_new_one_is_complete(tmp_path):
    path = tmp_path / "table.csv"
    with whole_file(path) as scratch:
        scratch.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as scratch:  # noqa: PT012
        scratch.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with whole_file(path) as scratch:
        scratch.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_all_files_of_a_model_can_be_read_by_those_who_can_read_any(tmp_path):
    write_model(tmp_path / "model", {"w": torch.ones(2)}, {"kind": "test"}, overwrite=False)
    (tmp_path / "any").touch()
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert set(modes) == {"model.safetensors", "model.json"}
    assert set(modes.values()) == {(tmp_path / "any").stat().st_mode}
