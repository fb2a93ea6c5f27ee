"""The experiment file: settings of reference, training and production, with units and defaults.

The file is YAML with the sections `reference`, `mapping`, `potential`, `dynamics`,
`discriminator`, `training` and `production`; only `reference` is required. `load_experiment`
reads and checks it; a wrong field raises `ConfigError` with one sentence.
"""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from .errors import InputError
from .ram import check_ram
from .threads import MOST_THREADS

LONGEST_OUTPUT = 0.1
"""Longest default time between frames of production (ps)."""

RAM_OF_MOLECULE = 1500
"""Bytes of RAM for each molecule of a built-in liquid, at least: 1630 were measured for argon, 10 000 for SPC/E water."""


class ConfigError(InputError):
    """An experiment file has a field, a value or a reference to a file that cannot be used."""


class Section(BaseModel):
    """Reject unknown keys, and keep values constant: the base of every section."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        strict=False,
        use_attribute_docstrings=True,
    )


def _as_list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, (str, Path, int, float)) else value


Seed = Annotated[int, Field(ge=0, lt=2**63)]
TimestepFs = Annotated[float, Field(ge=0.01, le=1000)]
"""Time step in fs. No liquid of beads needs less than the lower bound, and none is stable beyond the upper one."""
LengthPs = Annotated[float, Field(gt=0, le=1e9)]
"""Length in ps, of at most a millisecond."""


class Trajectory(Section):
    """An all-atom trajectory of the user, in a format that MDTraj reads."""

    topology: Path
    """Topology file: gro, pdb, prmtop, psf, …."""
    files: Annotated[list[Path], BeforeValidator(_as_list), Field(min_length=1)]
    """Trajectory files in the order of time; one, or a list."""
    frame_interval_fs: PositiveFloat
    """Time between frames."""
    selection: str | None = None
    """MDTraj atom selection of the atoms that are mapped to beads; all by default."""


class Reference(Section):
    """Source of the all-atom data: a built-in liquid, or a trajectory of the user.

    `water` is a rigid water model; `liquid` is Lennard-Jones argon, argon and krypton in equal
    numbers, or methanol (OPLS-AA). `beads` is a CG trajectory (H5MD) of this package.
    """

    temperature_K: PositiveFloat
    """Temperature of the reference and of the model."""
    water: Literal["spce", "tip3p", "tip4pew"] | None = None
    """Built-in rigid water model, simulated with OpenMM."""
    liquid: Literal["argon", "lj_mixture", "methanol"] | None = None
    """Other built-in liquid."""
    molecules: Annotated[int, Field(ge=20)] = 343
    """Number of molecules of a built-in liquid."""
    length_ps: LengthPs | None = None
    """When null, 200 for a built-in liquid, and the whole trajectory for `beads`."""
    equilibration_ps: LengthPs | None = None
    """Length of the equilibration; when null, a quarter of `length_ps`, but 10 to 50 ps."""
    timestep_fs: Annotated[float, Field(ge=0.01, le=4)] = 2.0
    """Time step of the all-atom simulation of a built-in liquid."""
    frame_interval_fs: PositiveFloat = 20.0
    """Time between frames of a built-in liquid, or of those that are taken from `beads`."""
    seed: Seed = 1
    """Seed of the configuration and of the velocities of a built-in liquid."""
    platform: str | None = None
    """OpenMM platform of the all-atom simulation; when null, the fastest."""
    trajectory: Trajectory | None = None
    """An all-atom trajectory of the user."""
    beads: Path | None = None
    """A CG trajectory (H5MD) of this package, such as `reference/beads.h5` of another experiment."""

    @model_validator(mode="after")
    def _one_source(self) -> Reference:
        sources = ("water", "liquid", "trajectory", "beads")
        found = [name for name in sources if getattr(self, name) is not None]
        if len(found) != 1:
            given = " and ".join(f"`{name}`" for name in found) or "none"
            raise InputError(
                f"found {given} of `water`, `liquid`, `trajectory` and `beads`, expected exactly one "
                "of them"
            )
        if self.made is None:
            made = {
                "molecules",
                "equilibration_ps",
                "timestep_fs",
                "seed",
                "platform",
            }
            if self.trajectory is not None:
                made |= {"length_ps", "frame_interval_fs"}
            extra = sorted(made & self.model_fields_set)
            if extra:
                raise InputError(
                    f"found `{extra[0]}` beside `{found[0]}`, expected it only with `water` or "
                    "`liquid`"
                    + (
                        " (the frame interval of a trajectory is `trajectory.frame_interval_fs`)"
                        if extra[0] == "frame_interval_fs"
                        else ""
                    )
                )
        else:
            check_ram(
                self.molecules * RAM_OF_MOLECULE, f"molecules: found {self.molecules}, which need"
            )
        if self.made is not None and not _is_multiple(self.frame_interval_fs, self.timestep_fs):
            raise InputError(
                f"found frame_interval_fs {self.frame_interval_fs:g}, expected a multiple of "
                f"timestep_fs {self.timestep_fs:g}"
            )
        return self

    @property
    def made(self) -> str | None:
        """Name of the built-in liquid, None for a trajectory."""
        return self.water or self.liquid

    @property
    def length(self) -> float | None:
        """Length in ps, None for the whole trajectory."""
        return 200.0 if self.made is not None and self.length_ps is None else self.length_ps

    @property
    def frame_interval(self) -> float:
        """Time between two frames of the reference in ps."""
        source = self.trajectory if self.trajectory is not None else self
        return source.frame_interval_fs * 1e-3


class Potential(Section):
    """Form of the learned energy, and the fit of the force-matched baseline."""

    cutoff_nm: PositiveFloat | None = None
    """When null, the distance within which a bead of the reference has 47 neighbours on average,
    to 0.01 nm, but at most half the box: 0.70 nm for water at 298 K."""
    pair_functions: Annotated[int, Field(ge=4)] = 26
    """Cubic B-splines of the energy of each pair of bead types."""
    three_body: bool = True
    """Whether the energy has a three-body term."""
    three_body_cutoff_nm: PositiveFloat | None = None
    """When null, likewise for 8 neighbours: 0.40 nm for water at 298 K."""
    radial_functions: PositiveInt | None = None
    """Radial functions of the three-body energy. When null, one for every 0.047 nm of its cutoff, but
    3 to 6: 3 for water, 5 for methanol."""
    l_max: Annotated[int, Field(ge=0, le=8)] = 4
    """Highest Legendre order of the angle in the three-body energy."""
    initial: Literal["auto", "force_matching", "boltzmann_inversion"] = "auto"
    """`auto` is force matching if the reference contains forces, else Boltzmann inversion."""

    @model_validator(mode="after")
    def _cutoffs(self) -> Potential:
        inner, outer = self.three_body_cutoff_nm, self.cutoff_nm
        if self.three_body and inner is not None and outer is not None and inner > outer:
            raise InputError(
                f"found three_body_cutoff_nm {inner:g}, expected at most cutoff_nm {outer:g}"
            )
        return self


@dataclass(frozen=True)
class Equation:
    """Which settings an equation of motion has.

    Attributes
    ----------
    memory : bool
        Whether it has auxiliary variables.
    most_auxiliary : int
        Largest number of auxiliary variables.
    options : tuple of str
        Settings of :class:`Dynamics` that this equation has and others do not.
    """

    memory: bool = True
    most_auxiliary: int = 8
    options: tuple[str, ...] = ()


EQUATIONS: dict[str, Equation] = {
    "generalized_langevin": Equation(),
    "langevin": Equation(memory=False),
    "pair": Equation(most_auxiliary=6, options=("friction_cutoff_nm", "self_friction_per_ps")),
}
"""The equations of motion by name, those of :data:`openmm_cgadv.dynamics.FRICTIONS`."""


class Dynamics(Section):
    """Equation of motion of the beads and its discretization."""

    equation: Literal["generalized_langevin", "langevin", "pair"] = "generalized_langevin"
    """`pair` is pairwise friction, which conserves momentum and so reproduces hydrodynamics."""
    timestep_fs: TimestepFs = 5.0
    """Time step of training and of validation in OpenMM; it divides the frame interval of the reference."""
    auxiliary_variables: Annotated[int, Field(ge=0, le=8)] | None = None
    """Auxiliary variables of the memory kernel per degree of freedom, or per pair of beads with
    `pair`; ignored by `langevin`, which has none. When null, the reference determines the number:
    4 for water with a frame every 20 fs, and 3 with `pair`."""
    friction_cutoff_nm: PositiveFloat | None = None
    """Cutoff of `pair` friction. When null, the distance within which a bead of the reference has
    11 neighbours on average, to 0.01 nm: 0.44 nm for water at 298 K."""
    self_friction_per_ps: PositiveFloat | None = None
    """Single-particle friction in addition to `pair` friction, as in an implicit solvent; it stays
    constant, and momentum is not conserved. None when null."""
    initial_friction_per_ps: PositiveFloat | None = None
    """Friction at the start of training; estimated from the reference when null."""

    @model_validator(mode="after")
    def _range(self) -> Dynamics:
        chosen = EQUATIONS[self.equation]
        for name, each in EQUATIONS.items():
            for option in each.options:
                if getattr(self, option) is not None and option not in chosen.options:
                    raise InputError(
                        f"found {option} beside equation `{self.equation}`, expected it only with `{name}`"
                    )
        if (self.auxiliary_variables or 0) > chosen.most_auxiliary:
            raise InputError(
                f"found {self.auxiliary_variables} auxiliary_variables with equation `{self.equation}`, "
                f"expected up to {chosen.most_auxiliary}"
            )
        return self

    @property
    def memory(self) -> int | None:
        """Auxiliary variables per degree of freedom or pair, 0 for memoryless Langevin dynamics;
        None if the reference determines them."""
        return self.auxiliary_variables if EQUATIONS[self.equation].memory else 0

    @property
    def timestep(self) -> float:
        """Time step in ps."""
        return self.timestep_fs * 1e-3


class Discriminator(Section):
    """The discriminators of trajectory segments (windows). `dynamics.equation: pair` adds one of transverse current modes."""

    kind: Literal["equivariant", "gram", "graph"] = "equivariant"
    """`equivariant` encodes the trajectory of one bead. `graph` adds a discriminator that also receives the motion of its
    neighbours, for `dynamics.equation: pair`. `gram` is a perceptron of fixed size on Gram-matrix features of the increments; it
    ignores `scalars`, `vectors`, `heads` and `attention`."""
    critics: Literal[1, 2] = 1
    """Number of discriminators; the second one receives only the two longest lags of the windows."""
    scalars: PositiveInt = 24
    """Scalar features of each frame; a multiple of `heads`."""
    vectors: PositiveInt = 8
    """Vector features of each frame; a multiple of `heads`."""
    heads: PositiveInt = 2
    """Attention heads."""
    attention: bool = True
    """Whether attention over time follows the encoder."""

    @model_validator(mode="after")
    def _heads(self) -> Discriminator:
        for name in ("scalars", "vectors"):
            if getattr(self, name) % self.heads:
                raise InputError(
                    f"found {name} {getattr(self, name)}, expected a multiple of heads {self.heads}"
                )
        return self


class Training(Section):
    """The adversarial training: its length, its windows and its random numbers."""

    seed: Seed = 1
    """Seed of all random numbers of the training."""
    iterations: Annotated[int, Field(ge=0, le=10_000_000)] = 1200
    """Largest number of iterations; training ends earlier if it converges."""
    window_ps: PositiveFloat | None = None
    """Length of a generated trajectory segment (window); the discriminator receives log-spaced lags up
    to it. When null, the reference determines it: 1.92 for water with a frame every 20 fs, 3.84 with
    pairwise friction."""
    chains: PositiveInt = 6
    """Number of persistent chains: trajectories of the model that continue from iteration to iteration."""
    potential: Literal["relative_entropy", "adversarial"] = "relative_entropy"
    """Loss of the potential: relative entropy, or that of a configurational discriminator. With `adversarial` all parameters
    follow discriminators, without an initial and final fit of the memory kernel to the MSD."""
    forget_ps: PositiveFloat | None = None
    """Damping time of the adjoint's Jacobian (Hessian) term. When null, the fitted potential
    determines it: 0.07 for water."""
    validate_every: PositiveInt = 50
    """Iterations between validations in OpenMM."""
    checkpoint_every: PositiveInt = 25
    """Iterations between checkpoints."""
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None
    """Threads of the training; when null, the cores that this process may use."""


class Production(Section):
    """The production run of the trained model in OpenMM, which the report analyses."""

    length_ps: LengthPs = 1000.0
    """Length of each run."""
    equilibration_ps: Annotated[float, Field(ge=0, le=1e9)] = 20.0
    """Length of the equilibration before it."""
    frame_interval_fs: PositiveFloat | None = None
    """When null, the interval of the reference, or an integer fraction of it of at most 100 fs."""
    timesteps_fs: Annotated[list[TimestepFs], BeforeValidator(_as_list)] = []
    """Time steps, one run for each; the report names the first one the trained model. When empty, the
    time step of the training."""
    seed: Seed = 1
    """Seed of velocities and noise."""
    platform: str | None = None
    """OpenMM platform; when null, by the number of beads."""
    backend: Literal["torchforce", "plugin", "pythonforce"] | None = None
    """What computes the energy in OpenMM; when null, the first that works."""


class Experiment(Section):
    """The content of an experiment file; relative paths are resolved against its folder."""

    reference: Reference
    mapping: Literal["per_residue"] = "per_residue"
    """One bead per residue, at its centre of mass."""
    potential: Potential = Potential()
    dynamics: Dynamics = Dynamics()
    discriminator: Discriminator = Discriminator()
    training: Training = Training()
    production: Production = Production()

    @model_validator(mode="after")
    def _times(self) -> Experiment:
        interval = self.reference.frame_interval * 1e3
        trained = self.dynamics.timestep_fs
        checks = [("dynamics.timestep_fs", trained, "reference frame interval", interval)]
        # Validation in OpenMM uses the time step of the training and the output interval of production.
        output = self.output_interval * 1e3
        checks.append(("dynamics.timestep_fs", trained, "production.frame_interval_fs", output))
        checks += [
            ("production.timesteps_fs", step, "production.frame_interval_fs", output)
            for step in self.production.timesteps_fs
        ]
        for field, step, of, interval in checks:
            if not _is_multiple(interval, step):
                raise InputError(
                    f"{field}: found {step:g}, expected a step that divides the {of} "
                    f"{interval:g} fs"
                )
        if self.production.length_ps < self.output_interval * (1 - 1e-9):
            raise InputError(
                f"production.length_ps: found {self.production.length_ps:g}, expected at least the "
                f"{self.output_interval:g} ps between its frames"
            )
        window, length = self.training.window_ps, self.reference.length
        shortest = 2 * self.reference.frame_interval
        if window is not None and window < shortest * (1 - 1e-9):
            raise InputError(
                f"training.window_ps: found {window:g}, expected at least two frames of the "
                f"reference, {shortest:g} ps"
            )
        if window is not None and length is not None and length < 2 * window + shortest:
            raise InputError(
                f"reference.length_ps: found {length:g}, expected at least {2 * window + shortest:g}, "
                f"two windows of training.window_ps {window:g}, one for training and one for validation"
            )
        if self.discriminator.critics == 2:
            if self.dynamics.memory == 0:
                raise InputError(
                    "discriminator.critics: found 2 with dynamics without memory, whose discriminator "
                    "receives only the two longest lags, expected 1"
                )
            if window is not None and window < 1.5 * shortest * (1 - 1e-9):
                raise InputError(
                    f"training.window_ps: found {window:g} with 2 discriminator.critics, expected at "
                    f"least three frames of the reference, {1.5 * shortest:g} ps"
                )
        made, cutoffs = self.reference.made, self.cutoffs
        if made is not None and cutoffs:
            from .data.reference.systems import box_edge

            number = self.reference.molecules
            edge = box_edge(made, number, self.reference.temperature_K)
            field, cutoff = max(cutoffs.items(), key=lambda item: item[1])
            if 2 * cutoff > edge:
                needed = math.ceil(number * (2 * cutoff / edge) ** 3)
                raise InputError(
                    f"{field}: found {cutoff:g}, expected at most {0.5 * edge:.3f}, "
                    f"half the box of {number} molecules of {made} (or at least {needed} molecules)"
                )
        return self

    @property
    def output_interval(self) -> float:
        """Time between frames of production (ps)."""
        given, interval = self.production.frame_interval_fs, self.reference.frame_interval
        if given is not None:
            return given * 1e-3
        steps = [self.dynamics.timestep_fs, *self.production.timesteps_fs]
        parts = range(math.ceil(interval / LONGEST_OUTPUT - 1e-9), math.floor(interval / 0.001) + 1)
        fractions = (interval / n for n in parts)
        return next(
            (part for part in fractions if all(_is_multiple(part * 1e3, step) for step in steps)),
            interval,
        )

    @property
    def cutoffs(self) -> dict[str, float]:
        """Cutoffs in the file (nm), by field; half the box limits them."""
        found = {
            "potential.cutoff_nm": self.potential.cutoff_nm,
            "dynamics.friction_cutoff_nm": self.dynamics.friction_cutoff_nm,
        }
        return {field: value for field, value in found.items() if value is not None}

    def check(self) -> None:
        """Check the files of a trajectory that the experiment names, and its box.

        The reference stage checks the frames.

        Raises
        ------
        ConfigError
            A file is missing or does not fit; the message names the field.
        """
        beads = self.reference.beads
        if beads is not None:
            from .data.reference.select import check_frames
            from .data.trajectory import BeadTrajectory

            if not beads.is_file():
                raise ConfigError(
                    f"reference.beads: found no file {beads}, expected a CG trajectory"
                )
            with BeadTrajectory.open(beads) as frames:
                check_frames(
                    frames,
                    self.reference.frame_interval,
                    self.reference.temperature_K,
                    self.reference.length,
                )
        source = self.reference.trajectory
        if source is None:
            return
        for field, path in [("topology", source.topology)] + [("files", p) for p in source.files]:
            if not path.is_file():
                raise ConfigError(
                    f"reference.trajectory.{field}: found no file {path}, expected an existing one"
                )
        width = _box_width(source)
        if width is None:
            return
        for field, cutoff in self.cutoffs.items():
            if cutoff > 0.5 * width:
                raise ConfigError(
                    f"{field}: found {cutoff:g}, expected at most {0.5 * width:.4g}, half "
                    f"the box of {source.files[0]}"
                )


def _box_width(source: Trajectory) -> float | None:
    """Return the shortest edge of the reduced box of a trajectory's first frame (nm), None without one."""
    import mdtraj

    try:
        frame = next(mdtraj.iterload(str(source.files[0]), top=str(source.topology), chunk=1))
    except Exception:
        return None
    vectors = frame.unitcell_vectors
    return None if vectors is None else float(min(vectors[0, k, k] for k in range(3)))


def load_experiment(path: str | os.PathLike, overrides: list[str] | None = None) -> Experiment:
    """Read and check an experiment file.

    Parameters
    ----------
    path : path
        YAML file. Relative paths in it are relative to its folder.
    overrides : list of str, optional
        Assignments `section.field=value` that replace fields of the file; values are YAML.

    Returns
    -------
    Experiment
        The checked experiment. `Experiment.check` also checks the files that it names.

    Raises
    ------
    ConfigError
        A field is wrong; the message names the file, the field, what was found and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: found no such file, expected an experiment file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({_first_line(error)})") from None
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or _first_line(error)
        raise ConfigError(f"{path}{where}: found text that is not YAML ({problem})") from None
    if not isinstance(data, dict):
        found = "an empty file" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: found {found}, expected sections such as `reference:`")
    # A section whose every line is commented out reads as null and means its defaults.
    data = {key: {} if value is None else value for key, value in data.items()}
    for override in overrides or []:
        _override(data, override)
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error)}") from None
    return _resolve(experiment, path.resolve().parent)


class _Loader(yaml.SafeLoader):
    """Refuse keys that occur twice, of which YAML would take the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key `{key.value}` occurs twice", problem_mark=key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _resolve(experiment: Experiment, folder: Path) -> Experiment:
    reference = experiment.reference
    if reference.beads is not None:
        reference = reference.model_copy(update={"beads": folder / reference.beads})
    elif reference.trajectory is not None:
        source = reference.trajectory.model_copy(
            update={
                "topology": folder / reference.trajectory.topology,
                "files": [folder / p for p in reference.trajectory.files],
            }
        )
        reference = reference.model_copy(update={"trajectory": source})
    return experiment.model_copy(update={"reference": reference})


def _override(data: dict, assignment: str) -> None:
    name, sign, value = assignment.partition("=")
    keys = name.strip().split(".")
    if not sign or not all(keys):
        raise ConfigError(
            f"--set: found {assignment!r}, expected `section.field=value` such as training.seed=2"
        )
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {name}: found {value!r}, expected a YAML value") from None
    for key in keys[:-1]:
        if data.get(key) is None:
            data[key] = {}
        data = data[key]
        if not isinstance(data, dict):
            raise ConfigError(f"--set {name}: found no section `{key}` to set a field of")
    data[keys[-1]] = parsed


def _is_multiple(interval: float, step: float) -> bool:
    ratio = interval / step
    return round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-6


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_TYPES = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "path_type": "a path",
    "list_type": "a list",
    "finite_number": "a finite number",
}


def _sentence(error: ValidationError) -> str:
    """Return one sentence about the first error in an experiment file."""
    errors = error.errors()
    # An unknown key explains a missing one, so it is named first.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    location = ".".join(str(part) for part in first["loc"])
    error_type, context = first["type"], first.get("ctx", {})
    if error_type == "extra_forbidden":
        names = _fields_at(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1, cutoff=0.5)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"unknown field `{location}`, expected one of {', '.join(names)}{hint}"
    if error_type == "missing":
        return f"required field `{location}` is missing"
    if error_type == "value_error":
        text = str(context.get("error", first["msg"]))
        return f"{location}: {text}" if location else text
    found = first["input"]
    if error_type in ("model_type", "model_attributes_type", "dict_type"):
        names = _fields_at(first["loc"])
        value = "nothing" if found is None else repr(found)
        return f"{location}: found {value}, expected a section with fields {', '.join(names)}"
    if error_type in _TYPES:
        expected = _TYPES[error_type]
    elif error_type == "literal_error":
        expected = context["expected"]
    elif error_type == "greater_than":
        expected = f"more than {context['gt']:g}"
    elif error_type == "greater_than_equal":
        expected = f"at least {context['ge']:g}"
    elif error_type == "less_than":
        expected = f"less than {context['lt']:g}"
    elif error_type == "less_than_equal":
        expected = f"at most {context['le']:g}"
    elif error_type == "too_short":
        expected = f"at least {context['min_length']} entry"
    else:
        expected = first["msg"]
    return f"{location}: found {found!r}, expected {expected}"


def _fields_at(location: tuple) -> list[str]:
    """Return the names of the fields of the section at `location`."""
    section: Any = Experiment
    for part in location:
        field = section.model_fields.get(part)
        if field is None:
            return []
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        section = next(
            (c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None
        )
        if section is None:
            return []
    return list(section.model_fields)
