"""What the command line does with files: run, folder of results, checks of trust, report."""

from stcsm.workflow._run import run_counts, run_demo
from stcsm.workflow.report import write_report

__all__ = ["run_counts", "run_demo", "write_report"]
