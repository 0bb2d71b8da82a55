"""A folder that appears whole or not at all."""

from __future__ import annotations

import pytest

from stcsm._folder import whole_folder


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
