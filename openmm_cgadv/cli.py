"""The command `cgadv`: an experiment from its file to its report, stage by stage."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .config import ConfigError, load_experiment

# Read when torch loads. The operations are short, and threads that spin while they wait for each
# other take several times as long on a machine that has other work as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Coarse-grained force fields with the structure and dynamics of all-atom reference data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(
        help="Experiment file (YAML). By default the one kept in DIR.", show_default=False
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", metavar="DIR", help="Directory of the experiment.", show_default=False),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.FIELD=VALUE",
        help="Set a field of the experiment file.",
        show_default=False,
    ),
]
Compare = Annotated[
    list[Path] | None,
    typer.Option(
        "--compare",
        metavar="DIR",
        help="Show the model of another experiment beside.",
        show_default=False,
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def one_sentence(command):
    """Turn errors into one sentence and an exit status, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args, debug: bool = False, **kwargs):
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to continue", file=sys.stderr)
            raise typer.Exit(130) from None
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            if debug or isinstance(error, typer.Exit):
                raise
            print(f"cgadv: {error}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _project(
    experiment: Path | None,
    out: Path,
    overrides: list[str] | None,
    compare: list[Path] | None = None,
):
    """The project, checked, with threads set: before torch and OpenMM do anything."""
    kept = out / "experiment.yaml"
    if experiment is None:
        if not kept.is_file():
            raise ConfigError(
                f"{out}: found no experiment.yaml, expected an experiment file to begin with"
            )
        experiment = kept
    settings = load_experiment(experiment, overrides)
    settings.check()
    set_threads(settings.training.threads)

    from .export.system import choose_backend
    from .production import find_platform
    from .progress import Reporter
    from .project import Project
    from .stages import STAGES
    from .summary import trained_elsewhere

    if settings.production.platform is not None:
        find_platform(settings.production.platform)
    if settings.production.backend is not None:
        choose_backend(settings.production.backend)
    for path in compare or ():
        trained_elsewhere(path)
    reporter = Reporter()
    _forward_log(reporter)
    return Project(out, settings, STAGES, reporter)


def _forward_log(reporter) -> None:
    """Let what the package logs appear among the other lines."""

    class Handler(logging.Handler):
        def emit(self, record):
            reporter.say(record.getMessage())

    logger = logging.getLogger("openmm_cgadv")
    logger.handlers = [Handler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def set_threads(threads: int | None = None) -> int:
    """Set the threads of torch and of the kernels, and say how many.

    Parameters
    ----------
    threads : int, optional
        By default OMP_NUM_THREADS, else the cores that this process may use.
    """
    import torch

    if threads is None:
        asked = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(asked) if asked.isdigit() and int(asked) > 0 else available_cores()
    torch.set_num_threads(threads)
    return threads


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@app.command()
@one_sentence
def run(
    experiment: ExperimentFile = None,
    out: Out = ...,
    set_: Set = None,
    compare: Compare = None,
    debug: Debug = False,
) -> None:
    """Do every stage, from the reference to the report; goes on where it stopped."""
    with _project(experiment, out, set_, compare) as project:
        project.run(tuple(compare or ()))
        _where_to_look(project)


def _where_to_look(project) -> None:
    project.reporter.say(f"report: open {project.directory / 'report' / 'index.html'}")


def _stage(name: str, help_: str):
    @one_sentence
    def command(
        experiment: ExperimentFile = None, out: Out = ..., set_: Set = None, debug: Debug = False
    ) -> None:
        with _project(experiment, out, set_) as project:
            project.run_one(name)

    app.command(name, help=help_)(command)


_stage("reference", "Make or read the all-atom reference and map it to beads.")
_stage("fit", "Fit the potential that training starts from.")
_stage("train", "Train potential, friction and memory.")
_stage("export", "Write the bundle model.cg.")
_stage("simulate", "Run the trained and the initial model in OpenMM.")


@app.command()
@one_sentence
def report(
    experiment: ExperimentFile = None,
    out: Out = ...,
    set_: Set = None,
    compare: Compare = None,
    debug: Debug = False,
) -> None:
    """Measure all runs and write report/index.html and report/metrics.json."""
    with _project(experiment, out, set_, compare) as project:
        project.run_one("report", tuple(compare or ()))
        _where_to_look(project)


@app.command()
@one_sentence
def doctor(debug: Debug = False) -> None:
    """Say what works on this machine: versions, platforms, backends, kernels, GPU, threads."""
    from .doctor import findings

    set_threads()
    for line in findings():
        print(line)
