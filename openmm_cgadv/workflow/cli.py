"""The command `cgadv`: stages of an experiment, production of a model bundle, CG trajectories."""

from __future__ import annotations

import functools
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import ConfigError, load_experiment
from ..errors import CGAdvError, InputError
from ..threads import thread_count

if TYPE_CHECKING:
    from .progress import Reporter
    from .project import Project

# Read when torch loads. Operations are short, and threads that spin while they wait are several
# times slower on a machine that runs other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="Coarse-grained force fields with the structure and dynamics of all-atom reference data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ExperimentFile = Annotated[
    Path | None,
    typer.Argument(help="Experiment file (YAML). By default the one in DIR.", show_default=False),
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
        help="Compare with the model of another experiment, or with a run by `cgadv simulate "
        "MODEL.cg --frame-interval-fs …`.",
        show_default=False,
    ),
]


def _of_bundle(*names: str, help: str, default: str | bool, **more: Any) -> Any:
    return typer.Option(
        *names, help=help, show_default=default, rich_help_panel="Options of a bundle", **more
    )


Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


def one_sentence(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with errors as one sentence and an exit status, without a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to continue", file=sys.stderr)
            raise typer.Exit(130) from None
        except Exception as error:
            # OpenMM is imported only by the commands that need it.
            openmm = sys.modules.get("openmm")
            expected: tuple[type[BaseException], ...] = (
                CGAdvError,
                ValueError,
                OSError,
                ImportError,
                MemoryError,
            )
            if openmm is not None:
                expected += (openmm.OpenMMException,)
            if debug or not isinstance(error, expected):
                raise
            print(f"cgadv: {error}", file=sys.stderr)
            raise typer.Exit(1) from None

    return wrapped


def _project(
    experiment: Path | None,
    out: Path,
    overrides: list[str] | None,
    compare: list[Path] | None = None,
) -> Project:
    """Check the settings, set the threads, and return the project; torch and OpenMM load afterwards."""
    kept = out / "experiment.yaml"
    if experiment is None:
        if not kept.is_file():
            raise ConfigError(
                f"{out}: found no experiment.yaml, expected an experiment file as argument"
            )
        experiment = kept
    settings = load_experiment(experiment, overrides)
    settings.check()
    set_threads(settings.training.threads)

    from ..dynamics import FRICTIONS
    from ..export.integrators import check_plugin
    from ..export.system import choose_backend
    from ..platforms import find_platform
    from .project import Project
    from .report_stage import check_compared
    from .stages import STAGES

    if settings.production.platform is not None:
        try:
            find_platform(settings.production.platform)
        except InputError as error:
            raise ConfigError(f"{experiment}: production.{error}") from None
    try:
        choose_backend(settings.production.backend, platform=settings.production.platform)
    except ImportError as error:
        raise ConfigError(f"{experiment}: production.{error}") from None
    check_plugin(FRICTIONS[settings.dynamics.equation])
    for path in compare or ():
        check_compared(path)
    return Project(out, settings, STAGES, _reporter())


def _reporter() -> Reporter:
    """Return a Reporter that also prints the log of the package."""
    from .progress import Reporter

    reporter = Reporter()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reporter.say(record.getMessage())

    logger = logging.getLogger("openmm_cgadv")
    logger.handlers = [Handler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return reporter


def set_threads(threads: int | None = None) -> int:
    """Set the number of threads of torch and of the kernels, and return it.

    Parameters
    ----------
    threads : int, optional
        See :func:`openmm_cgadv.threads.thread_count`.
    """
    import torch

    threads = thread_count(threads)
    torch.set_num_threads(threads)
    return threads


@app.command()
@one_sentence
def run(
    out: Out,
    experiment: ExperimentFile = None,
    set_: Set = None,
    compare: Compare = None,
    debug: Debug = False,
) -> None:
    """Run every stage, from the reference to the report; resume after an interruption."""
    with _project(experiment, out, set_, compare) as project:
        project.run(tuple(compare or ()))
        _say_report(project)


def _say_report(project: Project) -> None:
    project.reporter.say(f"report: open {project.directory / 'report' / 'index.html'}")


def _stage(name: str, help_: str) -> None:
    @one_sentence
    def command(
        out: Out, experiment: ExperimentFile = None, set_: Set = None, debug: Debug = False
    ) -> None:
        with _project(experiment, out, set_) as project:
            project.run_one(name)

    app.command(name, help=help_)(command)


_stage("reference", "Simulate or read the all-atom reference and map it to beads.")
_stage("fit", "Fit the force-matched baseline, from which training starts.")
_stage("train", "Train the potential, the friction and the memory kernel.")
_stage("export", "Write the model bundle model.cg.")


@app.command()
@one_sentence
def simulate(
    context: typer.Context,
    what: Annotated[
        Path | None,
        typer.Argument(
            metavar="[MODEL.cg|EXPERIMENT.yaml]",
            help="A model bundle, run as a bulk liquid; or an experiment, by default the one in "
            "DIR, whose trained model and baseline are run.",
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
            help="Time steps, rounded down to a whole number of frames; required.", default=False
        ),
    ] = None,
    molecules: Annotated[
        int | None, _of_bundle(help="Number of beads.", default="that of the bundle")
    ] = None,
    box: Annotated[
        str | None,
        _of_bundle(
            help="Edge of a cubic box, or three edges of a rectangular one, filled at the density "
            "of the bundle.",
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
        _of_bundle(help="Length of the equilibration after the minimization, ps.", default=True),
    ] = 20.0,
    report_interval: Annotated[
        int | None,
        _of_bundle(help="Steps between frames and between rows of the log.", default="about 1 ps"),
    ] = None,
    frame_interval_fs: Annotated[
        float | None,
        _of_bundle(
            help="Time between frames of beads.h5, which `cgadv report --compare` analyses; without "
            "it, no such file is written.",
            default=False,
        ),
    ] = None,
    format_: Annotated[
        str, _of_bundle("--format", help="Format of the trajectory: dcd or xtc.", default=True)
    ] = "dcd",
    backend: Annotated[
        str | None,
        _of_bundle(
            help="Backend that computes the energy in OpenMM.", default="the first that loads"
        ),
    ] = None,
    platform: Annotated[
        str | None, _of_bundle(help="OpenMM platform.", default="by the number of beads")
    ] = None,
    threads: Annotated[int | None, _of_bundle(help="Threads.", default="all cores")] = None,
    seed: Annotated[int, _of_bundle(help="Seed of velocities and noise.", default=True)] = 1,
    debug: Debug = False,
) -> None:
    """Run a model bundle as a bulk liquid of any size, or the models of an experiment.

    The same command resumes an interrupted run.
    """
    options = dict(context.params)
    for name in ("what", "out", "set_", "debug"):
        options.pop(name, None)
    if what is not None and (what.is_dir() or what.suffix == ".cg"):
        if set_:
            raise InputError("--set: found with a bundle, expected only with an experiment")
        _simulate_bundle(what, out or Path(f"{what.resolve().stem}.run"), **options)
        return
    for name in options:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.strip("_").replace("_", "-")
            raise InputError(f"{option}: found with an experiment, expected only with a bundle")
    if out is None:
        raise InputError("--out: found none, expected the directory of the experiment")
    with _project(what, out, set_) as project:
        project.run_one("simulate")


def _simulate_bundle(
    path: Path,
    out: Path,
    *,
    steps: int | None,
    molecules: int | None,
    box: str | None,
    timestep_fs: float | None,
    temperature: float | None,
    equilibration_ps: float,
    report_interval: int | None,
    frame_interval_fs: float | None,
    format_: str,
    backend: str | None,
    platform: str | None,
    threads: int | None,
    seed: int,
) -> None:
    threads = set_threads(threads)

    from ..bundle import load
    from ..export.integrators.conditions import check_temperature
    from ..export.system import choose_backend
    from ..files import locked
    from ..platforms import find_platform
    from ..simulation.bulk import bulk_model
    from ..simulation.run import run_production
    from ..simulation.viewer import FORMATS
    from .stages import speed

    model = load(path)
    if steps is None or steps < 1:
        found = "none" if steps is None else steps
        raise InputError(f"--steps: found {found}, expected the number of time steps to run")
    if temperature is not None:
        check_temperature(model, temperature)
        model = replace(model, temperature=temperature)
    if molecules is not None or box is not None:
        model = bulk_model(model, molecules, _edges(box))
    timestep = model.timestep if timestep_fs is None else timestep_fs * 1e-3
    if not timestep > 0:
        raise InputError(f"--timestep-fs: found {timestep_fs:g}, expected more than 0")
    if not 0 <= equilibration_ps < math.inf:
        raise InputError(f"--equilibration-ps: found {equilibration_ps:g}, expected 0 or more")
    if format_ not in FORMATS:
        raise InputError(f"--format: found {format_!r}, expected one of {', '.join(FORMATS)}")
    frame = 1 if frame_interval_fs is None else round(frame_interval_fs * 1e-3 / timestep)
    interval = _report_interval(steps, report_interval, timestep, max(frame, 1))
    # A run ends with a frame.
    steps -= steps % interval
    if platform is not None:
        find_platform(platform)
    reporter = _reporter()
    backend = choose_backend(backend, platform=platform, beads=len(model.types))
    arguments: dict[str, Any] = dict(
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
        threads=threads,
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
        raise InputError(f"--box: found {box}, expected one length or three, in nm") from None
    return edges[0] if len(edges) == 1 else edges


def _report_interval(steps: int, asked: int | None, timestep: float, multiple: int) -> int:
    """Return the steps from frame to frame: `asked`, or about 1 ps, a multiple of `multiple`."""
    if asked is None:
        if multiple > steps:
            raise InputError(
                f"--frame-interval-fs: found {multiple} steps, expected at most the --steps {steps} of the run"
            )
        return max(1, int(min(steps, 1 / timestep) / multiple + 1e-6)) * multiple
    if not 1 <= asked <= steps:
        raise InputError(
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
            help="Trajectory files of any format that MDTraj reads, in the order of time.",
            show_default=False,
        ),
    ],
    top: Annotated[
        Path, typer.Option("--top", help="Topology: gro, pdb, prmtop, …", show_default=False)
    ],
    interval_fs: Annotated[float, typer.Option(help="Time between frames.", show_default=False)],
    temperature: Annotated[float, typer.Option(help="Temperature, K.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="H5MD file to write.")] = Path(
        "beads.h5"
    ),
    selection: Annotated[
        str | None,
        typer.Option(
            help="MDTraj selection of the atoms to map; all by default.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Map an all-atom trajectory to beads, one for each residue, and write an H5MD file."""
    from ..data.reference import read_trajectory
    from ..data.trajectory import BeadTrajectory

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
    out: Out,
    experiment: ExperimentFile = None,
    set_: Set = None,
    compare: Compare = None,
    debug: Debug = False,
) -> None:
    """Analyse all runs and write report/index.html and report/metrics.json."""
    with _project(experiment, out, set_, compare) as project:
        project.run_one("report", tuple(compare or ()))
        _say_report(project)


@app.command()
@one_sentence
def doctor(debug: Debug = False) -> None:
    """Report what works on this machine: versions, platforms, backends, kernels, GPU, threads."""
    from .doctor import findings

    set_threads()
    logger = logging.getLogger("openmm_cgadv")
    level = logger.level
    # The report contains the information of the log.
    logger.setLevel(logging.ERROR)
    try:
        for line in findings():
            print(line)
    finally:
        logger.setLevel(level)


if __name__ == "__main__":
    app()
