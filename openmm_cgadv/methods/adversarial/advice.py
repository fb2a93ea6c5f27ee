"""What to change in an experiment whose trained model differs from its reference."""

from __future__ import annotations

from dataclasses import dataclass

from ...config import Experiment
from ...dynamics import FRICTIONS
from .time_scales import TimeScales


@dataclass(frozen=True)
class AdviceSettings:
    """Thresholds of the advice.

    Attributes
    ----------
    enough_auxiliary_variables : int
        Auxiliary variables that represent the memory kernels of all liquids tried so far.
    """

    enough_auxiliary_variables: int = 3


def advice(
    experiment: Experiment,
    scales: TimeScales,
    converged: bool,
    settings: AdviceSettings = AdviceSettings(),
) -> dict[str, str]:
    """Return advice for each group of observables in :data:`openmm_cgadv.methods.base.ADVICE`.

    Parameters
    ----------
    experiment : Experiment
    scales : TimeScales
        Settings that followed from the reference.
    converged : bool
        Whether training converged before its learning rates decayed.
    settings : AdviceSettings
    """
    if not converged:
        unfinished = "training ended before it converged; raise training.iterations"
        found = dict.fromkeys(("pair_structure", "angular_structure"), unfinished)
    else:
        found = _structure(experiment)
    frozen = (
        "the model froze or crystallized; a longer reference, more training.iterations or a smaller "
        "dynamics.initial_friction_per_ps may keep it liquid"
    )
    return found | _motion(experiment, scales, converged, settings) | {"frozen": frozen}


def _structure(experiment: Experiment) -> dict[str, str]:
    if experiment.training.potential == "adversarial":
        weak = (
            "a discriminator of configurations resolves less of the structure than the relative entropy does; use "
            "training.potential: relative_entropy"
        )
        return {"pair_structure": weak, "angular_structure": weak}
    pair = (
        "the pair energy has too few functions or too short a cutoff; raise potential.pair_functions or "
        "potential.cutoff_nm"
    )
    if experiment.potential.three_body:
        angular = (
            "the three-body energy has too few functions; raise potential.radial_functions or "
            "potential.l_max"
        )
    else:
        angular = "a pair energy does not determine angles; use potential.three_body: true"
    return {"pair_structure": pair, "angular_structure": angular}


SINGLE_BEADS = (
    "friction on single beads does not conserve momentum; use dynamics.equation: pair without "
    "dynamics.self_friction_per_ps"
)


def _motion(
    experiment: Experiment, scales: TimeScales, converged: bool, settings: AdviceSettings
) -> dict[str, str]:
    dynamics = experiment.dynamics
    between_beads = FRICTIONS[dynamics.equation].between_beads
    longest = scales.lags_ps[-1]
    if dynamics.self_friction_per_ps:
        every = (
            f"a friction of {dynamics.self_friction_per_ps:g}/ps acts on each bead as given and was not trained; change "
            "dynamics.self_friction_per_ps, or remove it if no solvent acts on the beads"
        )
    elif not converged:
        every = "training ended before it converged; raise training.iterations"
    elif experiment.discriminator.kind == "graph" and not between_beads:
        every = (
            "the graph discriminator observes that neighbours move together, which friction on single beads cannot "
            "reproduce; use dynamics.equation: pair, or discriminator.kind: equivariant"
        )
    elif not scales.auxiliary_variables and not between_beads:
        every = (
            "friction without memory cannot reproduce short and long times at once; use dynamics.equation: "
            "generalized_langevin, or a longer training.window_ps if only long times matter"
        )
    else:
        return {
            "motion": _kernel(scales, settings),
            "slow_motion": (
                f"training compared lags up to {longest:g} ps only and cannot determine slower memory; use a longer "
                "training.window_ps, and a longer reference if it is short"
            ),
            "fast_motion": "motion at so short a lag depends on the time step; use a shorter dynamics.timestep_fs",
            "collective_motion": SINGLE_BEADS
            if not between_beads
            else (
                "the range, the amplitude or the memory kernel of the pairwise friction is wrong; train again with "
                "another training.seed to see whether this is chance, then on a longer reference"
            ),
        }
    keys = ("motion", "slow_motion", "fast_motion", "collective_motion")
    return dict.fromkeys(keys, every)


def _kernel(scales: TimeScales, settings: AdviceSettings) -> str:
    number = scales.auxiliary_variables
    if number < settings.enough_auxiliary_variables:
        return (
            f"a memory kernel of {number} auxiliary variable{'s' * (number != 1)} is too simple; raise "
            "dynamics.auxiliary_variables, or use a reference with a shorter frame interval if the number follows from it"
        )
    return (
        "the friction that training found is wrong; train again with another training.seed to see whether this is "
        "chance, then on a longer reference"
    )
