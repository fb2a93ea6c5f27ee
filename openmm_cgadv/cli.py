"""The command `cgadv`: experiments stage by stage, runs of a bundle, trajectories to beads."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from dataclasses import replace
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
        help="Show the model of another experiment beside, or a run by `cgadv simulate MODEL.cg "
        "--frame-interval-fs …`.",
        show_default=False,
    ),
]

def _of_bundle(*names: str, help: str, default: str | bool, **more):
    return typer.Option(
        *names, help=help, show_default=default, rich_help_panel="Options of a bundle", **more
    )


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
        except Exception as error:
            # OpenMM, whose errors are of no class of Python's, is imported only by the commands that need it.
            expected = isinstance(error, (ValueError, RuntimeError, OSError, ImportError, MemoryError)) or type(error).__name__ == "OpenMMException"
            if debug or not expected or isinstance(error, typer.Exit):
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

    from .export.integrators import check_plugin
    from .export.system import choose_backend
    from .production import find_platform
    from .project import Project
    from .stages import STAGES
    from .summary import check_compared

    if settings.production.platform is not None:
        try:
            find_platform(settings.production.platform)
        except ValueError as error:
            raise ConfigError(f"{experiment}: production.{error}") from None
    if settings.production.backend is not None:
        try:
            choose_backend(settings.production.backend)
        except ImportError as error:
            raise ConfigError(f"{experiment}: production.{error}") from None
    if settings.dynamics.equation == "pair":
        check_plugin()
    for path in compare or ():
        check_compared(path)
    return Project(out, settings, STAGES, _reporter())


def _reporter():
    """A Reporter in which what the package logs appears among the other lines."""
    from .progress import Reporter

    reporter = Reporter()

    class Handler(logging.Handler):
        def emit(self, record):
            reporter.say(record.getMessage())

    logger = logging.getLogger("openmm_cgadv")
    logger.handlers = [Handler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return reporter


def set_threads(threads: int | None = None) -> int:
    """Set the threads of torch and of the kernels, and say how many.

    Parameters
    ----------
    threads : int, optional
        By default OMP_NUM_THREADS, else the cores that this process may use.
    """
    import torch

    if threads is not None and threads < 1:
        raise ValueError(f"threads: found {threads}, expected 1 or more")
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


@app.command()
@one_sentence
def simulate(
    context: typer.Context,
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL.cg|EXPERIMENT.yaml]",
            help="A bundle, to be run as a bulk liquid; or an experiment, by default the one kept "
            "in DIR, whose trained and initial model are run.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory of the experiment; or of the bundle's run, MODEL.run by default.",
            show_default=False,
        ),
    ] = None,
    set_: Set = None,
    steps: Annotated[
        int | None,
        _of_bundle(
            help="Time steps to run, cut to a whole number of frames; required.", default=False
        ),
    ] = None,
    molecules: Annotated[
        int | None, _of_bundle(help="How many beads.", default="as many as in the bundle")
    ] = None,
    box: Annotated[
        str | None,
        _of_bundle(
            help="Edge of a cubic box, or three of a rectangular one, filled at the bundle's "
            "density.",
            default=False,
            metavar="NM[,NM,NM]",
        ),
    ] = None,
    timestep_fs: Annotated[
        float | None, _of_bundle(help="Time step, fs.", default="that of the training")
    ] = None,
    temperature: Annotated[
        float | None, _of_bundle(help="Temperature, K.", default="that of the training")
    ] = None,
    equilibration_ps: Annotated[
        float,
        _of_bundle(help="Time between minimization and the run itself, ps.", default=True),
    ] = 20.0,
    report_interval: Annotated[
        int | None,
        _of_bundle(help="Steps between frames and between rows of the log.", default="about 1 ps"),
    ] = None,
    frame_interval_fs: Annotated[
        float | None,
        _of_bundle(
            help="Time between frames of beads.h5, which `cgadv report --compare` measures; no such "
            "file by default.",
            default=False,
        ),
    ] = None,
    format_: Annotated[
        str, _of_bundle("--format", help="Of the trajectory: dcd or xtc.", default=True)
    ] = "dcd",
    backend: Annotated[
        str | None,
        _of_bundle(help="What computes the energy in OpenMM.", default="the first that loads"),
    ] = None,
    platform: Annotated[
        str | None, _of_bundle(help="OpenMM platform.", default="by the number of beads")
    ] = None,
    threads: Annotated[int | None, _of_bundle(help="Threads.", default="all cores")] = None,
    seed: Annotated[int, _of_bundle(help="Of velocities and noise.", default=True)] = 1,
    debug: Debug = False,
) -> None:
    """Run a bundle as a bulk liquid of any size, or the models of an experiment.

    The same command goes on where it stopped.
    """
    options = dict(context.params)
    for name in ("what", "out", "set_", "debug"):
        options.pop(name, None)
    if what is not None and (what.is_dir() or what.suffix == ".cg"):
        if set_:
            raise ValueError("--set: found with a bundle, expected with an experiment alone")
        _simulate_bundle(what, out or Path(f"{what.resolve().stem}.run"), **options)
        return
    for name in options:
        if context.get_parameter_source(name).name == "COMMANDLINE":
            option = "--" + name.strip("_").replace("_", "-")
            raise ValueError(f"{option}: found with an experiment, expected with a bundle alone")
    if out is None:
        raise ValueError("--out: found none, expected the directory of the experiment")
    with _project(what, out, set_) as project:
        project.run_one("simulate")


def _simulate_bundle(
    path: Path,
    out: Path,
    *,
    steps,
    molecules,
    box,
    timestep_fs,
    temperature,
    equilibration_ps,
    report_interval,
    frame_interval_fs,
    format_,
    backend,
    platform,
    threads,
    seed,
) -> None:
    threads = set_threads(threads)

    from .bulk import bulk_model
    from .alone import locked
    from .export import load
    from .export.system import choose_backend
    from .production import FORMATS, find_platform, run_production
    from .stages import speed

    model = load(path)
    if steps is None or steps < 1:
        found = "none" if steps is None else steps
        raise ValueError(f"--steps: found {found}, expected the number of time steps to run")
    if temperature is not None:
        model = replace(model, temperature=temperature)
    if molecules is not None or box is not None:
        model = bulk_model(model, molecules, _edges(box))
    timestep = model.timestep if timestep_fs is None else timestep_fs * 1e-3
    if not timestep > 0:
        raise ValueError(f"--timestep-fs: found {timestep_fs:g}, expected more than 0")
    if not 0 <= equilibration_ps < math.inf:
        raise ValueError(f"--equilibration-ps: found {equilibration_ps:g}, expected 0 or more")
    if format_ not in FORMATS:
        raise ValueError(f"--format: found {format_!r}, expected one of {', '.join(FORMATS)}")
    frame = 1 if frame_interval_fs is None else round(frame_interval_fs * 1e-3 / timestep)
    interval = _report_interval(steps, report_interval, timestep, max(frame, 1))
    # A run ends with a frame.
    steps -= steps % interval
    if platform is not None:
        find_platform(platform)
    reporter = _reporter()
    backend = choose_backend(backend)
    arguments = dict(
        length=steps * timestep,
        frame_interval=None if frame_interval_fs is None else frame_interval_fs * 1e-3,
        report_interval=interval * timestep,
        trajectory_format=format_,
        timestep=timestep,
        minimize=True,
        equilibration=equilibration_ps,
        seed=seed,
        platform=platform,
        backend=backend,
    )
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        before = (out / "production.json").exists()
        edges = " x ".join(f"{edge:.4g}" for edge in model.box.diagonal())
        reporter.say(
            f"simulate: {len(model.types)} beads in {edges} nm, {steps} steps of "
            f"{timestep * 1e3:g} fs, {interval} from frame to frame"
        )
        with reporter.work("simulate", "ps") as update:
            run = run_production(model, out, **arguments, progress=update)
        state = "done before" if before else speed(run)
        more = ", beads.h5" if run.beads else ""
        reporter.say(f"simulate: {state}; {run.trajectory}, topology.pdb{more} and state.csv")


def _edges(box: str | None) -> list[float] | float | None:
    if box is None:
        return None
    try:
        edges = [float(edge) for edge in box.split(",")]
    except ValueError:
        raise ValueError(f"--box: found {box}, expected one length or three, in nm") from None
    return edges[0] if len(edges) == 1 else edges


def _report_interval(steps: int, asked: int | None, timestep: float, multiple: int) -> int:
    """Steps from frame to frame: those asked for, or about 1 ps and a multiple of a number."""
    if asked is None:
        if multiple > steps:
            raise ValueError(f"--frame-interval-fs: found {multiple} steps, expected no more than the --steps {steps} of the run")
        return max(1, int(min(steps, 1 / timestep) / multiple + 1e-6)) * multiple
    if not 1 <= asked <= steps:
        raise ValueError(
            f"--report-interval: found {asked}, expected 1 to the {steps} steps of the run"
        )
    return asked


@app.command("map")
@one_sentence
def map_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRAJECTORY...",
            help="Files of any format that MDTraj reads, in the order of time.",
            show_default=False,
        ),
    ],
    top: Annotated[
        Path, typer.Option("--top", help="Topology: gro, pdb, prmtop, …", show_default=False)
    ],
    interval_fs: Annotated[float, typer.Option(help="Time between frames.", show_default=False)],
    temperature: Annotated[float, typer.Option(help="K.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="H5MD file to be written.")
    ] = Path("beads.h5"),
    selection: Annotated[
        str | None,
        typer.Option(
            help="MDTraj selection of the atoms that are mapped; all by default.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn an all-atom trajectory into beads, one for each residue, in an H5MD file."""
    from .reference import read_trajectory
    from .trajectory import BeadTrajectory

    reporter = _reporter()
    before = out.exists()
    with reporter.work("map", "frames") as update:
        read_trajectory(
            out,
            topology=top,
            files=files,
            frame_interval=interval_fs * 1e-3,
            temperature=temperature,
            selection=selection,
            progress=update,
        )
    with BeadTrajectory.open(out) as beads:
        found = f"{beads.n_frames} frames of {beads.n_beads} beads ({', '.join(beads.type_names)})"
    reporter.say(f"map: {'done before, ' if before else ''}{found} in {out}")


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
    logger = logging.getLogger("openmm_cgadv")
    level = logger.level
    # What the log would say is among the findings.
    logger.setLevel(logging.ERROR)
    try:
        for line in findings():
            print(line)
    finally:
        logger.setLevel(level)
