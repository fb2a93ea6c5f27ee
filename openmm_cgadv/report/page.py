"""The report of an experiment: a page that people read and a file that programs read.

Both are made from plain numbers (`metrics.metrics`) and a few arrays, so that a report can be written again without the
trajectories. The page is one file that opens offline: its style sheet and figures are embedded.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import plots, sections
from .inputs import ReportInput, read_training_log
from .numbers import metrics_json
from .status import GOOD, MISSED, OPEN
from .table import table

SECTIONS = (
    "Assessment",
    "Observables",
    "Structure",
    "Motion",
    "The model",
    "Training",
    "Speed and time",
    "Provenance",
)
MARKS = {GOOD: "✓", MISSED: "✗", OPEN: "?"}


def write_report(directory: str | os.PathLike, data: ReportInput) -> Path:
    """Write ``index.html`` and ``metrics.json`` into a directory, which is created if absent.

    Returns
    -------
    Path
        Of ``index.html``.

    Raises
    ------
    ValueError
        The training log cannot be read, or the reference has no observables.
    """
    if not data.reference.metrics:
        raise ValueError("a report needs the observables of the reference, found none")
    directory = Path(directory)
    log = read_training_log(data.training_log) if data.training_log else {}
    directory.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(metrics_json(data, log), indent=1, allow_nan=False)
    (directory / "metrics.json").write_text(numbers + "\n", encoding="utf-8")
    page = directory / "index.html"
    page.write_text(render(data, log), encoding="utf-8")
    return page


def render(data: ReportInput, log: dict) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    data : ReportInput
    log : dict
        From `inputs.read_training_log`.
    """
    reference, others = series(data)
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return (
        environment.get_template("report.html")
        .render(
            title=data.title,
            lead=sections.lead(data),
            sections=SECTIONS,
            marks=MARKS,
            assessment=sections.assessment(data),
            table=table(data),
            figures=[
                ("Structure", sections.structure(data, reference, others)),
                ("Motion", sections.motion(data, reference, others)),
                ("The model", sections.model(data)),
                ("Training", sections.training(data, log)),
            ],
            speed=sections.speed(data),
            provenance=list(sections.provenance(data.provenance)),
        )
        .lstrip()
    )


def series(data: ReportInput) -> tuple[plots.Series, list[plots.Series]]:
    """Return the reference and the other runs with the colour and the line that each is drawn with."""
    reference = plots.Series(data.reference.label, data.reference.metrics, plots.REFERENCE)
    others = []
    if data.initial:
        others.append(plots.Series(data.initial.label, data.initial.metrics, plots.INITIAL, "--"))
    if data.trained:
        others.append(plots.Series(data.trained.label, data.trained.metrics, plots.TRAINED))
    for k, run in enumerate(data.comparison):
        color, line = plots.OTHERS[k % len(plots.OTHERS)], "-." if k % 2 else "-"
        others.append(plots.Series(run.label, run.metrics, color, line))
    return reference, others
