"""One self-contained HTML page of a result."""

from stcsm.workflow.report._page import write_report

__all__ = ["write_report"]
