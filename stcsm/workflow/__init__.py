"""What the command line does with files: run, folder of results, checks of trust, report."""

from stcsm.workflow._plan import TERMS, Size
from stcsm.workflow._progress import STAGES
from stcsm.workflow._run import run_counts, run_demo
from stcsm.workflow.report import write_report

__all__ = ["STAGES", "TERMS", "Size", "run_counts", "run_demo", "write_report"]
