"""Windows, memory and friction to start from follow from the reference alone."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from openmm_cgadv import config
from openmm_cgadv.analysis.msd import Msd, msd
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import Langevin
from openmm_cgadv.dynamics.generalized_langevin import initial_rates
from openmm_cgadv.fit import InitialFit
from openmm_cgadv.friction import PairResiduals
from openmm_cgadv.methods.adversarial.reference_checks import (
    check_ballistic_motion,
    check_sampling,
    check_temperature,
)
from openmm_cgadv.methods.adversarial.time_scales import (
    describe_rules,
    diffusive_lag,
    time_scales,
)
from openmm_cgadv.methods.adversarial.windows import msd_lags
from openmm_cgadv.potentials import PairSpec, PotentialSpec
from openmm_cgadv.units import KB

TEMPERATURE, LENGTH = 300.0, 2.0
KT = KB * TEMPERATURE
SPEC = PotentialSpec(("A",), (PairSpec((0.2,), 0.5, 6, (0.0,)),))
FREE = InitialFit(SPEC, np.zeros(6), np.zeros(6))

# Mean squared displacements of all-atom runs, nm^2, at 20 fs times 1, 2, 4 ...
WATER = [
    1.56e-4,
    5.6e-4,
    1.67e-3,
    4.11e-3,
    8.69e-3,
    1.466e-2,
    2.435e-2,
    4.258e-2,
    7.842e-2,
    0.14824,
    0.28687,
]
ARGON = [
    2.1e-5,
    8.4e-5,
    3.3e-4,
    1.22e-3,
    3.75e-3,
    8.49e-3,
    1.626e-2,
    3.005e-2,
    5.665e-2,
    0.10999,
    0.21426,
]
TIP3P = [
    1.658e-4,
    6.083e-4,
    1.922e-3,
    5.108e-3,
    1.225e-2,
    2.535e-2,
    4.993e-2,
    9.838e-2,
    0.19371,
    0.38249,
]
"""At 310 K: the slope has its maximum at 0.32 ps, where it is a sixth above what it comes to."""


def displacements(*curves, interval=0.02):
    lags = interval * 2.0 ** np.arange(len(curves[0]))
    blocks = np.repeat(np.array(curves)[None], 4, axis=0)
    return Msd(
        lags, blocks, np.zeros(len(lags)), tuple("AB")[: len(curves)], np.ones(len(curves)), 1000.0
    )


def test_windows_end_where_the_slope_of_the_displacement_stays():
    assert diffusive_lag(displacements(WATER), 0.1) == (pytest.approx(1.28), True)
    assert diffusive_lag(displacements(WATER), 0.05) == (pytest.approx(2.56), True)
    assert diffusive_lag(displacements(ARGON), 0.1) == (pytest.approx(2.56), True)
    assert diffusive_lag(displacements(WATER, ARGON), 0.1) == (pytest.approx(2.56), True)
    assert diffusive_lag(displacements(WATER, interval=0.1), 0.1) == (pytest.approx(6.4), True)
    assert diffusive_lag(displacements(TIP3P), 0.1) == (pytest.approx(0.64), True)
    assert diffusive_lag(displacements(WATER[:6]), 0.1) == (None, True)


def test_a_lag_that_passes_because_of_its_error_alone_is_not_known():
    moved, rng = displacements(WATER), np.random.default_rng(0)
    slopes = np.diff(moved.blocks, axis=-1) * (1 + rng.normal(0, 0.4, [4, 1, len(WATER) - 1]))
    wild = np.concatenate(
        [moved.blocks[..., :1], moved.blocks[..., :1] + np.cumsum(slopes, -1)], -1
    )
    lag, known = diffusive_lag(replace(moved, blocks=wild), 0.08)
    assert lag is not None and not known


def test_a_plateau_of_the_slope_on_its_way_down_is_no_diffusion():
    slopes = np.array([3.0, 3.05, 3.0, 1.5, 1.0, 1.0, 1.0])
    curve = np.cumsum(np.concatenate([[1.0], slopes * 2.0 ** np.arange(7)]))
    assert diffusive_lag(displacements(curve), 0.1) == (pytest.approx(0.02 * 2**5), True)


def free_beads(
    path, friction, frames, interval, mass=18.0, beads=200, force=None, about=None, seed=0
):
    """Beads that feel nothing but friction and noise, exact at any time step."""
    rng = np.random.default_rng(seed)
    parts = 5
    e, s = (m.item() for m in Langevin(1, friction).propagator(interval / parts))
    thermal = math.sqrt(KT / mass)
    x = rng.uniform(0, LENGTH, [beads, 3])
    v = thermal * rng.normal(size=x.shape)
    positions = []
    for _ in range(frames):
        positions.append(x)
        for _ in range(parts):
            old, v = v, e * v + thermal * s * rng.normal(size=v.shape)
            x = x + 0.5 * interval / parts * (old + v)
    with BeadWriter(
        path,
        [mass] * beads,
        [0] * beads,
        ("A",),
        TEMPERATURE,
        interval,
        about or {},
        forces=force is not None,
    ) as writer:
        box = np.broadcast_to(LENGTH * np.eye(3), [frames, 3, 3])
        writer.append(np.array(positions), box, forces=force)
        writer.finish()
    return BeadTrajectory.open(path)


def experiment(trajectory, equation="generalized_langevin", **training):
    interval = 1e3 * trajectory.frame_interval
    return config.Experiment.model_validate(
        {
            "reference": {
                "temperature_K": TEMPERATURE,
                "beads": "x",
                "frame_interval_fs": interval,
            },
            "dynamics": {"equation": equation, "timestep_fs": interval / 4},
            "training": training,
        }
    )


def test_all_time_scales_are_ten_times_as_long_in_a_liquid_ten_times_as_slow(tmp_path):
    found = []
    for slower in (1.0, 10.0):
        path = tmp_path / f"{slower}.h5"
        trajectory = free_beads(path, 10.0 / slower, 1500, 0.02 * slower, 18.0 * slower**2)
        found.append(time_scales(trajectory, FREE, experiment(trajectory)))
    quick, slow = found
    assert 0.1 < quick.window_ps < 1.3 and quick.warnings == slow.warnings == ()
    assert slow.lags_ps == pytest.approx([10 * lag for lag in quick.lags_ps])
    assert slow.auxiliary_variables == quick.auxiliary_variables
    for name, power in (("rates_per_ps", -1), ("friction_per_ps", -1), ("structure_ps", 1)):
        assert np.array(getattr(slow, name)) == pytest.approx(
            10.0**power * np.array(getattr(quick, name)), rel=1e-3
        )
    # Free beads keep half of their kT/(m D) = 10/ps, and somewhat less at a finite lag.
    assert 4.0 < quick.friction_per_ps[0] < 10.0


def test_sparser_frames_have_fewer_lags_and_fewer_auxiliary_variables(tmp_path):
    numbers = []
    for k, interval in enumerate((0.01, 0.1, 0.5)):
        trajectory = free_beads(tmp_path / f"{k}.h5", 6.0, 1200, interval)
        scales = time_scales(trajectory, FREE, experiment(trajectory))
        resolved = scales.resolved(experiment(trajectory))
        assert resolved.dynamics.memory == scales.auxiliary_variables >= 1
        assert resolved.training.window_ps == pytest.approx(scales.lags_ps[-1])
        numbers.append((len(scales.lags_ps), scales.auxiliary_variables))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0][1] == 4 and numbers[-1] == (3, 1)


def test_displacements_are_compared_at_two_lags_an_octave_and_at_the_windows_end():
    assert msd_lags(1) == [1] and msd_lags(3) == [1, 2, 3]
    assert msd_lags(96) == [1, 2, 3, 4, 6, 8, 12, 17, 24, 34, 48, 68, 96]


def test_memoryless_windows_are_past_the_memory(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 10.0, 1500, 0.02)
    memory = time_scales(trajectory, FREE, experiment(trajectory))
    memoryless = time_scales(trajectory, FREE, experiment(trajectory, "langevin"))
    first, second = memoryless.lags_ps
    assert second == pytest.approx(2 * first) and first >= memory.diffusive_ps
    assert memoryless.auxiliary_variables == 0
    assert f"is trained at {first:.3g} and {second:.3g} ps" in memoryless.warnings[-1]


def test_windows_of_friction_between_pairs_are_twice_as_long(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 10.0, 1500, 0.02)
    own, pairs = (
        time_scales(trajectory, FREE, experiment(trajectory, equation))
        for equation in ("generalized_langevin", "pair")
    )
    assert pairs.diffusive_ps == own.diffusive_ps and pairs.window_ps == pytest.approx(
        2 * own.window_ps
    )
    assert pairs.lags_ps[-1] == pytest.approx(2 * own.lags_ps[-1], rel=0.05)
    assert own.floor_per_ps == pytest.approx(2 / own.lags_ps[-1])
    assert pairs.floor_per_ps == pytest.approx(4 / pairs.lags_ps[-1])
    assert min(pairs.rates_per_ps) > 0


def test_what_the_experiment_says_is_taken_as_it_is(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 10.0, 400, 0.02)
    scales = time_scales(trajectory, FREE, experiment(trajectory, window_ps=0.4, forget_ps=0.05))
    assert (
        scales.lags_ps == pytest.approx((0.02, 0.04, 0.08, 0.16, 0.32, 0.4))
        and scales.forget_ps == 0.05
    )


def test_a_reference_too_short_to_diffuse_says_so(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 0.1, 100, 0.02)
    (sentence,) = time_scales(trajectory, FREE, experiment(trajectory)).warnings
    assert "does not become diffusive" in sentence and "2 ps" in sentence


def test_a_wrong_frame_interval_shows_in_the_first_frames(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 2.0, 200, 0.02)
    moved = msd(trajectory, [0.02, 0.04])
    assert check_ballistic_motion(trajectory, moved) == []
    for factor, energy in ((2.0, "0.2"), (0.5, "[34]")):
        told = SimpleNamespace(
            frame_interval=0.02 * factor,
            **{
                name: getattr(trajectory, name)
                for name in ("type_masses", "types", "temperature", "provenance", "position_errors")
            },
        )
        (sentence,) = check_ballistic_motion(told, replace(moved, lags=factor * moved.lags))
        assert re.search(
            rf"as if they had {energy}\S* times .* frame interval of {20 * factor:g} fs", sentence
        )


@pytest.mark.parametrize("rounding", [None, 0.001])
def test_a_wrong_temperature_of_few_beads_shows_through_rounding(tmp_path, rounding):
    about = (
        {}
        if rounding is None
        else {"rounding": {"step_nm": rounding, "bead_error_nm": [rounding / 12**0.5]}}
    )
    trajectory = free_beads(tmp_path / "free.h5", 2.0, 2000, 0.02, beads=64, about=about)
    moved = msd(trajectory, [0.02, 0.04])
    assert check_ballistic_motion(trajectory, moved) == []
    for factor in (0.5, 2.0):
        trajectory.temperature *= factor
        (sentence,) = check_ballistic_motion(trajectory, moved)
        assert float(
            re.search(r"as if they had (\S+) times the kinetic energy", sentence)[1]
        ) == pytest.approx(1 / factor, rel=0.15)
        trajectory.temperature /= factor


def test_frames_too_sparse_for_vibrations_are_told():
    assert check_sampling(0.02, 30.0, 1.28, 1.28, False) == []
    (fast, ahead) = check_sampling(0.5, 30.0, 1.0, 1.0, False)
    assert "half period is 0.1 ps" in fast and "0.5 ps" in ahead


@pytest.mark.parametrize(
    "step, error, words",
    [(0.001, 0.001, "which adds .* %"), (0.001, 1e-5, None), (0.1, 0.03, "can't be corrected")],
)
def test_rounded_coordinates_are_told_where_they_matter(tmp_path, step, error, words):
    about = {"rounding": {"step_nm": step, "bead_error_nm": [error]}}
    trajectory = free_beads(tmp_path / "rounded.h5", 10.0, 400, 0.02, about=about)
    found = time_scales(trajectory, FREE, experiment(trajectory)).warnings
    assert len(found) == (words is not None)
    assert words is None or re.search(f"rounded to {step:g} nm, .*{words}", found[0])


def left_over(trajectory, spec):
    """The fit of no potential, which leaves all forces over."""
    theta = np.zeros(spec.n_parameters)
    return InitialFit(spec, theta, theta, {}, PairResiduals.measure(trajectory, spec, theta))


def test_residual_forces_give_their_friction_and_none_gives_a_little(tmp_path):
    interval, rate, friction, mass, beads, frames = 0.02, 8.0, 12.0, 18.0, 200, 1000
    rng = np.random.default_rng(1)
    # <F(0) F(t)> = m kT K(t) for each component, with K(t) = friction rate exp(-rate t).
    size, keep = math.sqrt(mass * KT * friction * rate), math.exp(-rate * interval)
    force = [size * rng.normal(size=[beads, 3])]
    for _ in range(frames - 1):
        force.append(keep * force[-1] + math.sqrt(1 - keep**2) * size * rng.normal(size=[beads, 3]))
    trajectory = free_beads(tmp_path / "forces.h5", 40.0, frames, interval, force=np.array(force))
    (start,) = time_scales(
        trajectory, left_over(trajectory, SPEC), experiment(trajectory, window_ps=1.28)
    ).friction_per_ps
    assert start == pytest.approx(friction, rel=0.1)
    quiet = free_beads(tmp_path / "quiet.h5", 40.0, 400, interval, force=np.zeros([400, beads, 3]))
    (start,) = time_scales(quiet, left_over(quiet, SPEC), experiment(quiet)).friction_per_ps
    # A thousandth of kT/(m D), which is 40/ps.
    assert start == pytest.approx(0.04, rel=0.5)


def test_two_bead_types_start_from_frictions_of_their_own(tmp_path):
    interval, rate, frictions, mass, beads, frames = 0.02, 8.0, (4.0, 16.0), 18.0, 200, 1000
    types = np.arange(beads) % 2
    rng = np.random.default_rng(2)
    size = np.sqrt(mass * KT * np.array(frictions)[types] * rate)[:, None]
    keep = math.exp(-rate * interval)
    force = [size * rng.normal(size=[beads, 3])]
    for _ in range(frames - 1):
        force.append(keep * force[-1] + math.sqrt(1 - keep**2) * size * rng.normal(size=[beads, 3]))
    steps = np.sqrt(KT / mass / np.array(frictions)[types] * 0.5 * interval)[:, None]
    walk = np.cumsum(steps * rng.normal(size=[frames, beads, 3]), axis=0)
    with BeadWriter(
        tmp_path / "two.h5",
        [mass] * beads,
        types,
        ("A", "B"),
        TEMPERATURE,
        interval,
        {},
        forces=True,
    ) as writer:
        writer.append(walk, LENGTH * np.eye(3), forces=np.array(force))
        writer.finish()
    two = PotentialSpec(("A", "B"), (PairSpec((0.2,) * 3, 0.5, 6, (0.0,) * 3),))
    with BeadTrajectory.open(tmp_path / "two.h5") as trajectory:
        scales = time_scales(
            trajectory, left_over(trajectory, two), experiment(trajectory, window_ps=1.28)
        )
    # Their D makes kT/(m D) four times the friction, half of which is the most that is started from.
    assert scales.einstein_friction_per_ps == pytest.approx([4 * f for f in frictions], rel=0.15)
    assert scales.friction_per_ps == pytest.approx(frictions, rel=0.15)


def test_rates_to_start_from_are_evenly_spread():
    torch.testing.assert_close(
        initial_rates(3, (1.0, 100.0)), torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    )
    torch.testing.assert_close(
        initial_rates(1, (1.0, 100.0)), torch.tensor([10.0], dtype=torch.float64)
    )
    assert len(initial_rates(0, (1.0, 100.0))) == 0


def test_the_rule_is_said(tmp_path):
    trajectory = free_beads(tmp_path / "free.h5", 10.0, 400, 0.02)

    def said(*equation, **given):
        settings = experiment(trajectory, *equation, **given)
        return describe_rules(settings)

    assert (
        "Windows end at 1.5 times the lag" in said()
        and "less than 8 %" in said()
        and "every factor of 4" in said()
    )
    assert "end at 3 times" in said("pair") and "every factor of 8" in said("pair")
    assert "less than 5 %; friction is trained at its end and half of that" in said("langevin")
    assert said(window_ps=0.4).startswith("The window is given")


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_velocities_of_another_temperature_are_told(tmp_path, factor):
    rng = np.random.default_rng(1)
    with BeadWriter(
        tmp_path / "warm.h5", [18.0] * 50, [0] * 50, ("A",), TEMPERATURE, 0.02, velocities=True
    ) as writer:
        v = rng.normal(scale=math.sqrt(factor * KT / 18.0), size=[400, 50, 3])
        writer.append(np.cumsum(0.02 * v, 0), LENGTH * np.eye(3), v)
        writer.finish()
    with BeadTrajectory.open(tmp_path / "warm.h5") as trajectory:
        told = check_temperature(trajectory)
    assert bool(told) == (factor > 1)
    assert not told or "its temperature is given as 300 K" in told[0]
