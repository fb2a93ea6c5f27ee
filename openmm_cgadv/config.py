"""The experiment file: what is simulated, learned and run, every field with its unit and default.

The file is YAML with the sections `reference`, `mapping`, `potential`, `dynamics`,
`discriminator`, `training` and `production`; only `reference` is required. `load_experiment`
reads and checks it; everything that is wrong raises `ConfigError` with one sentence.
"""

from __future__ import annotations

import difflib
import math
import os
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


LONGEST_OUTPUT = 0.1
"""Longest time between frames of production that is chosen where none is given (ps)."""


class ConfigError(ValueError):
    """Something in an experiment file is wrong; the message is one sentence for a person."""


class Section(BaseModel):
    """Common rules of every section: unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)


def _as_list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, (str, Path, int, float)) else value


class Trajectory(Section):
    """An all-atom trajectory of one's own, in formats that MDTraj reads."""

    topology: Path
    files: Annotated[list[Path], BeforeValidator(_as_list), Field(min_length=1)]
    frame_interval_fs: PositiveFloat
    selection: str | None = None
    """MDTraj atom selection of what is mapped to beads; everything by default."""


class Reference(Section):
    """Where the all-atom data come from: a liquid made to order, or a trajectory of one's own.

    `water` is a rigid model of it; `liquid` is Lennard-Jones argon, argon and krypton in equal
    numbers, or methanol of OPLS-AA. `beads` is a trajectory that was mapped before, a bead file
    (H5MD) of this package.
    """

    temperature_K: PositiveFloat
    water: Literal["spce", "tip3p", "tip4pew"] | None = None
    liquid: Literal["argon", "lj_mixture", "methanol"] | None = None
    molecules: Annotated[int, Field(ge=20)] = 343
    length_ps: PositiveFloat | None = None
    """When null, 200 of what is made to order, and all there is of `beads`."""
    equilibration_ps: PositiveFloat | None = None
    """Length of the equilibration before the reference; chosen by the length of it when null."""
    timestep_fs: Annotated[float, Field(gt=0, le=4)] = 2.0
    frame_interval_fs: PositiveFloat = 20.0
    seed: Annotated[int, Field(ge=0)] = 1
    platform: str | None = None
    trajectory: Trajectory | None = None
    beads: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Reference:
        sources = ("water", "liquid", "trajectory", "beads")
        found = [name for name in sources if getattr(self, name) is not None]
        if len(found) != 1:
            given = " and ".join(f"`{name}`" for name in found) or "none"
            raise ValueError(
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
                raise ValueError(
                    f"found `{extra[0]}` beside `{found[0]}`, expected it only with `water` or "
                    "`liquid`"
                    + (
                        " (the frame interval of a trajectory is `trajectory.frame_interval_fs`)"
                        if extra[0] == "frame_interval_fs"
                        else ""
                    )
                )
        elif not _is_multiple(self.frame_interval_fs, self.timestep_fs):
            raise ValueError(
                f"found frame_interval_fs {self.frame_interval_fs:g}, expected a multiple of "
                f"timestep_fs {self.timestep_fs:g}"
            )
        return self

    @property
    def made(self) -> str | None:
        """Name of the liquid that is made to order, None of data at hand."""
        return self.water or self.liquid

    @property
    def length(self) -> float | None:
        """Length in ps, None for all there is."""
        return 200.0 if self.made is not None and self.length_ps is None else self.length_ps

    @property
    def frame_interval(self) -> float:
        """Time between two frames of the reference in ps."""
        source = self.trajectory if self.trajectory is not None else self
        return source.frame_interval_fs * 1e-3


class Potential(Section):
    """Form of the learned energy and how its first version is fitted."""

    cutoff_nm: PositiveFloat | None = None
    """When null, the distance within which a bead of the reference has 47 neighbours on average,
    to 0.01 nm, but at most half the box: 0.70 nm for water at 298 K."""
    pair_functions: Annotated[int, Field(ge=4)] = 26
    three_body: bool = True
    three_body_cutoff_nm: PositiveFloat | None = None
    """When null, likewise for 8 neighbours: 0.40 nm for water at 298 K."""
    radial_functions: PositiveInt | None = None
    """Of the three-body energy. When null, one for every 0.047 nm of its range, but 3 to 6: 3 for water, 5 for methanol."""
    l_max: Annotated[int, Field(ge=0, le=8)] = 4
    initial: Literal["auto", "force_matching", "boltzmann_inversion"] = "auto"
    """`auto` is force matching where the reference holds forces, else Boltzmann inversion."""

    @model_validator(mode="after")
    def _cutoffs(self) -> Potential:
        inner, outer = self.three_body_cutoff_nm, self.cutoff_nm
        if self.three_body and None not in (inner, outer) and inner > outer:
            raise ValueError(
                f"found three_body_cutoff_nm {inner:g}, expected at most cutoff_nm {outer:g}"
            )
        return self


class Dynamics(Section):
    """Equation of motion of the beads and its discretization."""

    equation: Literal["generalized_langevin", "langevin", "pair"] = "generalized_langevin"
    """`pair` is friction between neighbours, which keeps momentum and so the viscosity."""
    timestep_fs: PositiveFloat = 5.0
    auxiliary_variables: Annotated[int, Field(ge=0, le=8)] | None = None
    """Memory variables a degree of freedom, or a pair of beads with `pair`; without meaning for
    `langevin`, which has none. From the reference when null: for water with a frame every
    20 fs 4, and 3 with `pair`."""
    friction_cutoff_nm: PositiveFloat | None = None
    """Range of `pair` friction. When null, the distance within which a bead of the reference has
    11 neighbours on average, to 0.01 nm: 0.44 nm for water at 298 K."""
    self_friction_per_ps: PositiveFloat | None = None
    """Friction of each bead against its surroundings beside `pair` friction, as in an implicit
    solvent; it is kept as it is given, and momentum is not conserved. None when null."""
    initial_friction_per_ps: PositiveFloat | None = None
    """Friction at the start of training; estimated from the reference when null."""

    @model_validator(mode="after")
    def _range(self) -> Dynamics:
        for name in ("friction_cutoff_nm", "self_friction_per_ps"):
            if getattr(self, name) is not None and self.equation != "pair":
                raise ValueError(
                    f"found {name} beside equation `{self.equation}`, expected it only with `pair`"
                )
        if self.equation == "pair" and (self.auxiliary_variables or 0) > 6:
            raise ValueError(
                f"found {self.auxiliary_variables} auxiliary_variables with equation `pair`, expected up to 6"
            )
        return self

    @property
    def memory(self) -> int | None:
        """Auxiliary variables a degree of freedom or a pair, 0 for memoryless Langevin dynamics;
        None as long as they are to follow from the reference."""
        return 0 if self.equation == "langevin" else self.auxiliary_variables

    @property
    def timestep(self) -> float:
        """Time step in ps."""
        return self.timestep_fs * 1e-3


class Discriminator(Section):
    """The discriminators of window dynamics. Friction between neighbours has one of shear waves besides, whatever is chosen."""

    kind: Literal["equivariant", "gram", "graph"] = "equivariant"
    """`graph` is that critic and another one, which sees how the neighbours of a bead moved; it is for friction between
    neighbours, `dynamics.equation: pair`. `gram` sees scalar products of increments in a perceptron of fixed size; scalars,
    vectors, heads and attention are those of the others."""
    critics: Literal[1, 2] = 1
    """The second one sees the two longest lags of the windows alone."""
    scalars: PositiveInt = 24
    vectors: PositiveInt = 8
    heads: PositiveInt = 2
    attention: bool = True

    @model_validator(mode="after")
    def _heads(self) -> Discriminator:
        for name in ("scalars", "vectors"):
            if getattr(self, name) % self.heads:
                raise ValueError(
                    f"found {name} {getattr(self, name)}, expected a multiple of heads {self.heads}"
                )
        return self


class Training(Section):
    """The adversarial game: its length, its windows and its random numbers."""

    seed: Annotated[int, Field(ge=0)] = 1
    iterations: Annotated[int, Field(ge=0)] = 1200
    """Most iterations; training ends before, once it has settled."""
    window_ps: PositiveFloat | None = None
    """Length of a generated window; the discriminator sees log-spaced lags that fit into it. From
    the reference when null: 1.92 for water with a frame every 20 fs, 3.84 for friction between pairs."""
    chains: PositiveInt = 6
    potential: Literal["relative_entropy", "adversarial"] = "relative_entropy"
    """What the potential follows: the reference's averages, or a critic of configurations. With `adversarial` everything comes from
    critics, and memory follows displacements neither before nor after them."""
    forget_ps: PositiveFloat | None = None
    """Time over which the adjoint forgets the feedback that comes through the forces; from the
    fitted potential when null, 0.07 for water."""
    validate_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 25
    threads: PositiveInt | None = None
    """Threads of the training; the cores that this process may use when null."""


class Production(Section):
    """The run of the trained model in OpenMM that the report measures."""

    length_ps: PositiveFloat = 1000.0
    equilibration_ps: Annotated[float, Field(ge=0)] = 20.0
    frame_interval_fs: PositiveFloat | None = None
    """That of the reference when null, or a whole fraction of it of at most 100 fs."""
    timesteps_fs: Annotated[list[PositiveFloat], BeforeValidator(_as_list)] = []
    """Time steps, one run each, the first of which the report calls the trained model; the one of
    the training when empty."""
    seed: Annotated[int, Field(ge=0)] = 1
    platform: str | None = None
    backend: Literal["torchforce", "plugin", "pythonforce"] | None = None


class Experiment(Section):
    """One experiment file, with relative paths already resolved against the file's folder."""

    reference: Reference
    mapping: Literal["per_residue"] = "per_residue"
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
        # Live validation runs at the step of the training, and writes as production does.
        output = self.output_interval * 1e3
        checks.append(("dynamics.timestep_fs", trained, "production.frame_interval_fs", output))
        checks += [
            ("production.timesteps_fs", step, "production.frame_interval_fs", output)
            for step in self.production.timesteps_fs
        ]
        for field, step, of, interval in checks:
            if not _is_multiple(interval, step):
                raise ValueError(
                    f"{field}: found {step:g}, expected a step that divides the {of} "
                    f"{interval:g} fs"
                )
        window, length = self.training.window_ps, self.reference.length
        shortest = 2 * self.reference.frame_interval
        if window is not None and window < shortest * (1 - 1e-9):
            raise ValueError(
                f"training.window_ps: found {window:g}, expected at least two frames of the "
                f"reference, {shortest:g} ps"
            )
        if None not in (window, length) and length < 2 * window + shortest:
            raise ValueError(
                f"reference.length_ps: found {length:g}, expected at least {2 * window + shortest:g}, "
                f"two windows of training.window_ps {window:g}, of which one is held out"
            )
        if self.discriminator.critics == 2:
            if self.dynamics.memory == 0:
                raise ValueError(
                    "discriminator.critics: found 2 with dynamics without memory, which is judged at "
                    "the two longest lags alone, expected 1"
                )
            if window is not None and window < 1.5 * shortest * (1 - 1e-9):
                raise ValueError(
                    f"training.window_ps: found {window:g} with 2 discriminator.critics, expected at "
                    f"least three frames of the reference, {1.5 * shortest:g} ps"
                )
        made, cutoffs = self.reference.made, self.cutoffs
        if made is not None and cutoffs:
            from .reference.systems import box_edge

            number = self.reference.molecules
            edge = box_edge(made, number, self.reference.temperature_K)
            field, cutoff = max(cutoffs.items(), key=lambda item: item[1])
            if 2 * cutoff > edge:
                needed = math.ceil(number * (2 * cutoff / edge) ** 3)
                raise ValueError(
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
        """Fields that are ranges no longer than half the box, those that are given (nm)."""
        found = {
            "potential.cutoff_nm": self.potential.cutoff_nm,
            "dynamics.friction_cutoff_nm": self.dynamics.friction_cutoff_nm,
        }
        return {field: value for field, value in found.items() if value is not None}

    def check(self) -> None:
        """Check what the file refers to, before any work: the files of a trajectory and its box.

        What else may be wrong with a trajectory is said where it is read.

        Raises
        ------
        ConfigError
            With one sentence naming the field, what was found and what was expected.
        """
        beads = self.reference.beads
        if beads is not None:
            from .reference.select import check_frames
            from .trajectory import BeadTrajectory

            if not beads.is_file():
                raise ConfigError(f"reference.beads: found no file {beads}, expected a bead file")
            with BeadTrajectory.open(beads) as source:
                check_frames(
                    source,
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
        for field, cutoff in self.cutoffs.items() if width is not None else ():
            if cutoff <= 0.5 * width:
                continue
            raise ConfigError(
                f"{field}: found {cutoff:g}, expected at most {0.5 * width:.4g}, half "
                f"the box of {source.files[0]}"
            )


def _box_width(source: Trajectory) -> float | None:
    """Shortest edge of the reduced box of a trajectory's first frame (nm), where it can be told."""
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
    path
        YAML file. Relative paths in it are relative to its folder.
    overrides
        Assignments `section.field=value` that replace fields of the file; values are YAML.

    Returns
    -------
    Experiment
        The checked experiment. `Experiment.check` also looks at the files that it names.

    Raises
    ------
    ConfigError
        With one sentence naming the file, the field, what was found and what was expected.
    """
    path = Path(path)
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"{path}: found no such file, expected an experiment file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read ({_first_line(error)})") from None
    try:
        data = yaml.safe_load(text)
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
    """One sentence for the first thing that is wrong in an experiment file."""
    errors = error.errors()
    # An unknown key explains a missing one, so it is named first.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    location = ".".join(str(part) for part in first["loc"])
    kind, context = first["type"], first.get("ctx", {})
    if kind == "extra_forbidden":
        names = _fields_at(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), names, n=1, cutoff=0.5)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        return f"unknown field `{location}`, expected one of {', '.join(names)}{hint}"
    if kind == "missing":
        return f"required field `{location}` is missing"
    if kind == "value_error":
        text = str(context.get("error", first["msg"]))
        return f"{location}: {text}" if location else text
    found = first["input"]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        names = _fields_at(first["loc"])
        shown = "nothing" if found is None else repr(found)
        return f"{location}: found {shown}, expected a section with fields {', '.join(names)}"
    if kind in _TYPES:
        expected = _TYPES[kind]
    elif kind == "literal_error":
        expected = context["expected"]
    elif kind == "greater_than":
        expected = f"more than {context['gt']:g}"
    elif kind == "greater_than_equal":
        expected = f"at least {context['ge']:g}"
    elif kind == "less_than_equal":
        expected = f"at most {context['le']:g}"
    elif kind == "too_short":
        expected = f"at least {context['min_length']} entry"
    else:
        expected = first["msg"]
    return f"{location}: found {found!r}, expected {expected}"


def _fields_at(location: tuple) -> list[str]:
    """Names of the fields of the section at `location`."""
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
