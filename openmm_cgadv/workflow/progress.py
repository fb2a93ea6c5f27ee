"""Progress, rate and remaining time of long work: a bar on a terminal, log lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0
"""Default time between two log lines about the same work (s)."""

Update = Callable[..., None]
"""Called as ``update(done, total, detail="")``; the total is None if it is unknown."""


class Reporter:
    """Print messages and progress to a terminal or a log.

    Parameters
    ----------
    console : rich.console.Console, optional
        Standard output by default.
    line_seconds : float
        Time between two log lines about the same work (s).
    """

    def __init__(self, console: Console | None = None, line_seconds: float = LINE_SECONDS) -> None:
        self._line_seconds = line_seconds
        self.console = console or Console(soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line."""
        if self.console.is_terminal:
            self.console.print(text, markup=False)
        else:
            self.console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)

    @contextmanager
    def work(self, name: str, unit: str) -> Iterator[Update]:
        """Yield the function that reports the progress of work, counted in `unit` such as ``"ps"``."""
        meter = _Meter(name, unit)
        if not self.console.is_terminal:
            yield self._lines(meter)
            return
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}")
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=None, text="")

            def update(done: float, total: float | None = None, detail: str = "") -> None:
                text = meter.text(done, total, detail)
                bar.update(task, completed=done, total=total, text=text)

            yield update

    def _lines(self, meter: _Meter) -> Update:
        # The first line comes early: it shows the start of the work and its expected duration.
        due = time.monotonic() + 0.2 * self._line_seconds

        def update(done: float, total: float | None = None, detail: str = "") -> None:
            nonlocal due
            text = meter.text(done, total, detail)
            if time.monotonic() >= due:
                due = time.monotonic() + self._line_seconds
                self.say(f"{meter.name}: {text}")

        return update


class _Meter:
    """Compute rate and remaining time of work from the point where this process resumed it."""

    def __init__(self, name: str, unit: str) -> None:
        self.name, self.unit = name, unit
        self.begun = time.monotonic()
        self.first: float | None = None

    def text(self, done: float, total: float | None, detail: str) -> str:
        now = time.monotonic()
        if self.first is None:
            # Resumed work starts far from zero.
            self.first, self.begun = done, now
        parts = [
            f"{_number(done)} {self.unit}"
            if total is None
            else f"{_number(done)} of {_number(total)} {self.unit}"
        ]
        rate = (done - self.first) / (now - self.begun) if now > self.begun else 0.0
        if rate > 0:
            parts.append(
                f"{rate:.3g} {self.unit}/s" if rate >= 0.1 else f"{1 / rate:.3g} s/{self.unit}"
            )
            if total is not None:
                parts.append(f"{duration((total - done) / rate)} left")
        return ", ".join(parts + [detail] * bool(detail))


def duration(seconds: float) -> str:
    """Return a duration (s) as text, such as 42 s, 3 min 20 s or 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"
