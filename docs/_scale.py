"""The tables of large.md, from the records of benchmarks/scale.py and benchmarks/pooling.py."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks import pooling  # noqa: E402
from benchmarks.scale import RECORD, STAGES, slopes  # noqa: E402

runs = json.loads(RECORD.read_text(encoding="utf-8"))["runs"]
"""Runs of the record."""
usual = [r for r in runs if not r["sets"] and not r["options"]]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def planned_ratio(run: dict) -> float:
    """Planned over taken seconds of the stages that were planned."""
    stages = [s for s in run["stages"].values() if s["planned_seconds"] is not None]
    return sum(s["planned_seconds"] for s in stages) / sum(s["seconds"] for s in stages)


def where(run: dict) -> str:
    """Machine and day of a run; whether something else was running."""
    return f"{run['machine']}, {run['date']}" + ("" if run["idle"] else f", busy (load {run['load']:g})")


pooled = json.loads(pooling.RECORD.read_text(encoding="utf-8"))["runs"]

substitutions = {
    "pooling_runs": pooling.table(pooled, [1, 3, 5, 10]),
    "scale_runs": table(
        ["places x genes", "seconds", "memory, GB", *STAGES],
        [
            [f"{r['places']:,} x {r['genes']:,}", f"{r['seconds']:.0f}", f"{r['peak_bytes'] / 1e9:.1f}"]
            + [f"{r['stages'][s]['seconds']:.1f}" if s in r["stages"] else "" for s in STAGES]
            for r in usual
        ],
    ),
    "scale_machines": "; ".join(sorted({where(r) for r in usual})),
    "scale_slopes": table(
        ["slope of the seconds over", "run", *STAGES],
        [
            [what, *(f"{found[s]:.2f}" if s in found else "" for s in ("run", *STAGES))]
            for machine in sorted({r["machine"] for r in usual})
            for what, found in slopes([r for r in usual if r["machine"] == machine]).items()
        ],
    ),
    "scale_plans": table(
        ["places x genes, gene sets", "planned / taken time", "planned / taken memory"],
        [
            [
                f"{r['places']:,} x {r['genes']:,}, {r['sets']}",
                f"{planned_ratio(r):.2f}",
                f"{r['memory']['planned'] / r['peak_bytes']:.2f}",
            ]
            for r in runs
            if all(s["planned_seconds"] != 0 for s in r["stages"].values())  # before there were rates
        ],
    ),
}
