"""How far long work is, with its rate and the time left: a bar on a terminal, else log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10.0
"""Time between two lines of a log about the same work."""

Update = Callable[..., None]
"""Called as ``update(done, total, detail="")``; the total is None where it is not known."""


class Reporter:
    """Says what is done, to a person at a terminal or into a log.

    Parameters
    ----------
    console : rich.console.Console, optional
        Standard output by default.
    """

    def __init__(self, console: Console | None = None):
        self.console = console or Console(soft_wrap=True, highlight=False)

    def say(self, text: str) -> None:
        """One line."""
        if self.console.is_terminal:
            self.console.print(text, markup=False)
        else:
            self.console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False)

    @contextmanager
    def work(self, name: str, unit: str) -> Iterator[Update]:
        """Long work counted in a unit such as ``"ps"``; yields what it calls as it goes on."""
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
        # The first line comes early: it shows that work has begun, and how long it will take.
        due = time.monotonic() + 0.2 * LINE_SECONDS

        def update(done: float, total: float | None = None, detail: str = "") -> None:
            nonlocal due
            text = meter.text(done, total, detail)
            if time.monotonic() >= due:
                due = time.monotonic() + LINE_SECONDS
                self.say(f"{meter.name}: {text}")

        return update


class _Meter:
    """Rate and time left of work, from where this process took it up."""

    def __init__(self, name: str, unit: str):
        self.name, self.unit = name, unit
        self.begun = time.monotonic()
        self.first: float | None = None

    def text(self, done: float, total: float | None, detail: str) -> str:
        now = time.monotonic()
        if self.first is None:
            # The rate is that of what follows: resumed work starts far from zero.
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
    """Such as 42 s, 3 min 20 s or 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _number(value: float) -> str:
    return f"{value:.0f}" if value == round(value) or value >= 100 else f"{value:.1f}"
