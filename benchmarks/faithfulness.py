"""Which attribution method shows what the concept score stands on?

    python benchmarks/faithfulness.py --bulb COUNTS --bulb-labels CSV_OR_OBS_COLUMN --cortex H5AD --cortex-labels ...
        [--weights NPZ] [--faces 2000] [--tasks bulb cortex paper faces] [--json OUT]

Ranks all methods on each task that has what it needs: two tissues (default model, layers' markers from one half of the
counts, maps from the other), the published model (--weights) and drawn faces (--faces N). Methods are ranked by the
three areas between LIF and MIF curves (`benchmarks/_faithfulness/measures.py`), mean rank over areas and tasks. The
rule, set before the first run: the default method is the one of the best mean rank among those that on every task draw
another map for another concept, for the opposite concept and for a random top layer (correlation below 0.5).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._faithfulness.measures import AREAS, measure, sound
from benchmarks._faithfulness.tasks import TASKS
from stcsm.attribution import METHODS


def main() -> None:
    """Run all tasks, print a table for each and one over all, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulb")
    parser.add_argument("--bulb-labels", default="layer")
    parser.add_argument("--cortex")
    parser.add_argument("--cortex-labels", default="layer")
    parser.add_argument("--weights", help="weights of the published model, .npz")
    parser.add_argument("--faces", type=int, default=0, help="drawn faces; 0 for none")
    parser.add_argument("--face-epochs", type=int, default=15)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    tables: dict[str, pd.DataFrame] = {}
    about: dict[str, str] = {}
    for name, (needs, make) in TASKS.items():
        if name not in args.tasks:
            continue
        lacking = [option for option in needs if not getattr(args, option)]
        if lacking:
            print(f"{name}: left out, needs --{lacking[0].replace('_', '-')}", flush=True)
            continue
        task = make(args)
        about[name] = task.about
        rows = {method: measure(task, method, args.seed) for method in args.methods}
        table = pd.DataFrame(rows).T
        table["rank"] = table[list(AREAS)].rank(ascending=False).mean(axis=1)
        table["sound"] = [sound(rows[m]) for m in table.index]
        tables[name] = table.sort_values("rank")
        print(f"\n{name}: {task.about}; seed {args.seed}, {torch.get_num_threads()} threads")
        print(tables[name].round(3).to_string(), flush=True)
    if not tables:
        raise SystemExit("Expected data for at least one task, found none; see --help")
    overall = pd.DataFrame({name: t["rank"] for name, t in tables.items()})
    overall["mean"] = overall.mean(axis=1)
    overall["sound"] = np.logical_and.reduce([t["sound"].reindex(overall.index).astype(bool) for t in tables.values()])
    overall = overall.sort_values("mean")
    print("\nmean rank over the three areas, by task; sound: passes the sanity checks on every task")
    print(overall.round(2).to_string())
    best = overall.index[overall["sound"]]
    print(f"best sound method: {best[0] if len(best) else 'none'}")
    if args.json:
        report = {
            "seed": args.seed,
            "tasks": {
                n: {"about": about[n], "methods": json.loads(t.to_json(orient="index"))} for n, t in tables.items()
            },
            "overall": json.loads(overall.to_json(orient="index")),
            "best": best[0] if len(best) else None,
        }
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
