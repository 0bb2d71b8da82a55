"""The progress of a run: one bar over its named stages, lines where nobody watches, and the seconds of each stage.

Steps of Python have bars of their own (``progress=``); a run has this one.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

STAGES = ("read", "width", "train", "saliency", "null", "graph", "map", "sanity", "write")
"""What a run goes through, in order."""
LINE_SECONDS, LINE_SHARE = 60.0, 0.1
"""Into a file, a line comes when both have passed since the last one: seconds, and share of the run."""
TICK = 0.5
"""Seconds between two looks at the clock."""
PRIOR = 0.05
"""Share of the plan that the pace so far is mixed with: the first seconds say little."""


class RunProgress:
    """Shows where a run is, and measures its stages.

    Parameters
    ----------
    quiet
        Show nothing.
    console
        Where to show it; by default the standard error stream.

    Attributes
    ----------
    seconds, cpu_seconds
        Wall and processor time of each stage that has ended, all threads together.
    planned
        Seconds that each stage was planned to take; empty before :meth:`plan`.
    """

    def __init__(self, quiet: bool, console: Console | None = None):
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.planned: dict[str, float] = {}
        self.quiet = quiet
        self._console = console or Console(stderr=True)
        self._stage, self._began, self._cpu_began = "", 0.0, 0.0
        self._share: float | None = None
        self._done = self._spent = 0.0
        self._line_at, self._line_share = time.perf_counter(), 0.0
        self._stop = threading.Event()

    def __enter__(self) -> RunProgress:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            redirect_stdout=sys.stdout.isatty(),
            transient=True,
            disable=self.quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, left="")
        self._bar.start()
        self._ticker = threading.Thread(target=self._tick, daemon=True)
        if not self.quiet:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._bar.stop()

    def plan(self, seconds: Mapping[str, float]) -> None:
        """Take the seconds that the stages to come are expected to take; the bar is as long as these."""
        self.planned = dict(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage: its time is measured, and its name is shown."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    def _begin(self, name: str) -> None:
        self._share = None
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        self._stage = name

    def _end(self) -> None:
        name, spent = self._stage, time.perf_counter() - self._began
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - self._cpu_began
        if self.planned:
            self._done += self.planned.get(name, 0.0)
            self._spent += spent

    def switch(self, name: str) -> None:
        """End the stage that is running and begin another inside of the same block."""
        self._end()
        self._begin(name)

    def advance(self, share: float) -> None:
        """Tell which share of the stage that is running is done; without, the plan's seconds tell."""
        self._share = share

    def where(self) -> tuple[float, float]:
        """Share of the run that is done, and the seconds that it will still take at the pace so far."""
        total = sum(self.planned.values())
        if not total:
            return 0.0, 0.0
        here, spent = self.planned.get(self._stage, 0.0), time.perf_counter() - self._began
        share = min(spent / here, 1.0) if self._share is None and here else self._share or 0.0
        done = min(self._done + here * share, total)
        pace = (self._spent + spent + PRIOR * total) / (done + PRIOR * total)
        return done / total, (total - done) * pace

    def record(self) -> dict[str, Any]:
        """What the run took so far, by stage: seconds, processor seconds and the seconds that were planned."""
        self.switch(self._stage)
        return {
            "stages": {
                name: {
                    "seconds": round(seconds, 3),
                    "cpu_seconds": round(self.cpu_seconds[name], 3),
                    "planned_seconds": round(self.planned[name], 3) if name in self.planned else None,
                }
                for name, seconds in self.seconds.items()
            }
        }

    def _tick(self) -> None:
        """Keep the bar or the lines up to date while the stages work."""
        while not self._stop.wait(TICK):
            share, left = self.where()
            if not self.planned:
                continue
            if self._console.is_terminal:
                self._bar.update(
                    self._task, description=self._stage, total=1.0, completed=share, left=f"{duration(left)} left"
                )
            elif self._is_due(share):
                self._console.print(f"{self._stage}: {share:.0%} done, {duration(left)} left", highlight=False)

    def _is_due(self, share: float) -> bool:
        now = time.perf_counter()
        if now - self._line_at < LINE_SECONDS or share - self._line_share < LINE_SHARE:
            return False
        self._line_at, self._line_share = now, share
        return True


class TrainingProgress(Callback):
    """Tells the progress of a run about its training: where the search for the width ends, and every step.

    Parameters
    ----------
    progress
        Of the run.
    """

    def __init__(self, progress: RunProgress):
        self.progress = progress

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the search for the width."""
        self.progress.switch("train")

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Count a step."""
        self.progress.advance(trainer.global_step / trainer.estimated_stepping_batches)


def duration(seconds: float) -> str:
    """``12 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
