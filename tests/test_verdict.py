"""The verdict on a map is the same text everywhere, and never says that q is at a level it is below."""

from __future__ import annotations

import pytest

from stcsm._verdict import by_q, stronger, together

NAN = float("nan")


@pytest.mark.parametrize(
    ("q", "words"),
    [
        (0.001, "stronger than random genes (q = 0.001)"),
        (0.04975, "stronger than random genes (q = 0.0498)"),
        (0.05, "not distinguishable from random genes (q = 0.05)"),
        (0.612, "not distinguishable from random genes (q = 0.61)"),
        (NAN, "not tested against random genes"),
    ],
)
def test_the_verdict_is_by_q(q, words):
    assert by_q(q) == words
    assert stronger(q) == words.startswith("stronger")


def test_both_together_are_evidence_only_where_the_map_is_strong_and_sound():
    said = {(q, warned): together(q, warned) for q in (0.01, 0.3) for warned in (False, True)}
    assert len(set(said.values())) == 4
    assert [key for key, text in said.items() if text.endswith("it is evidence.")] == [(0.01, False)]
    assert together(NAN, False) == together(0.01, None) == ""
