"""Analysis against closed forms, exact lattices and MDTraj."""

import json
import subprocess
import sys
import tracemalloc

import mdtraj
import numpy as np
import pytest

from openmm_cgadv.analysis import (
    adf,
    blocks,
    diffusion,
    measurement,
    metrics,
    msd,
    pairs,
    rdf,
    sampling,
    shells,
    temperature,
    vacf,
)
from openmm_cgadv.analysis.blocks import Unmeasurable
from openmm_cgadv.analysis.tolerances import OBSERVABLES
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.report.status import GOOD, MISSED, status, status_by_lag
from openmm_cgadv.units import KB

TEMPERATURE = 300.0
MASS = 18.0
TRICLINIC = np.array([[2.2, 0, 0], [0.5, 2.1, 0], [-0.6, 0.4, 2.0]])


@pytest.fixture
def write(tmp_path):
    """Stores positions [T, N, 3] and opens them as a trajectory."""
    opened = []

    def make(
        positions, box=np.eye(3) * 2, interval=0.02, types=None, names=("A", "B"), velocities=None
    ):
        n = positions.shape[1]
        types = np.zeros(n, int) if types is None else types
        path = tmp_path / f"{len(opened)}.h5"
        writer = BeadWriter(
            path,
            np.full(n, MASS),
            types,
            names[: max(types) + 1],
            TEMPERATURE,
            interval,
            velocities=velocities is not None,
        )
        for k in range(0, len(positions), 200):
            part = slice(k, k + 200)
            writer.append(
                positions[part], box, velocities=None if velocities is None else velocities[part]
            )
        writer.finish()
        opened.append(BeadTrajectory.open(path))
        return opened[-1]

    yield make
    for trajectory in opened:
        trajectory.close()


def ideal_gas(seed, box, frames=300, n=120):
    return np.random.default_rng(seed).random((frames, n, 3)) @ box


def free_beads(seed, frames, n, gamma, dt=0.02):
    """Exact trajectory of free Langevin beads: positions [T, N, 3], nm."""
    rng = np.random.default_rng(seed)
    kt = KB * TEMPERATURE / MASS
    e = np.exp(-gamma * dt)
    var_v = 1 - e**2
    var_x = (2 * gamma * dt - 3 + 4 * e - e**2) / gamma**2
    cov = (1 - e) ** 2 / gamma
    noise = rng.normal(size=(2, frames, n, 3)) * np.sqrt(kt)
    kick_v = np.sqrt(var_v) * noise[0]
    kick_x = cov / np.sqrt(var_v) * noise[0] + np.sqrt(var_x - cov**2 / var_v) * noise[1]
    v = rng.normal(size=(n, 3)) * np.sqrt(kt)
    x = np.zeros((frames, n, 3))
    for k in range(1, frames):
        x[k] = x[k - 1] + v * (1 - e) / gamma + kick_x[k]
        v = e * v + kick_v[k]
    return x


def walkers(seed, frames, n, step=0.01):
    return np.cumsum(np.random.default_rng(seed).normal(size=(frames, n, 3)) * step, axis=0)


# structure


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("box", [np.diag([2.0, 2.2, 2.4]), TRICLINIC], ids=["brick", "triclinic"])
def test_ideal_gas_has_unit_pair_distribution(write, box, seed):
    curves = rdf.rdf(write(ideal_gas(seed, box), box))
    observed, expected = curves.observed.sum(0)[0], curves.expected.sum(0)[0]
    half_width = 0.5 / np.linalg.norm(np.linalg.inv(box), axis=0).max()
    assert curves.edges[-1] == pytest.approx(min(1.0, half_width), abs=rdf.BIN_WIDTH)
    # every pair is seen from both ends: variance of a count is twice its mean
    chi2 = ((observed - expected) ** 2 / (2 * expected)).mean()
    assert abs(chi2 - 1) < 5 * np.sqrt(2 / len(observed))
    assert observed.sum() == pytest.approx(expected.sum(), abs=5 * np.sqrt(2 * expected.sum()))


@pytest.mark.parametrize("box", [np.diag([2.0, 2.2, 2.4]), TRICLINIC], ids=["brick", "triclinic"])
def test_pair_distribution_is_that_of_mdtraj(write, box):
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(*[np.arange(5) / 5] * 3, indexing="ij"), -1).reshape(-1, 3)
    x = (grid + 0.03 * rng.normal(size=(40, 125, 3))) @ box
    x += rng.integers(-2, 3, size=x.shape) @ box
    types = rng.integers(0, 2, 125)
    curves = rdf.rdf(write(x, box, types=types), r_max=0.9)

    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(125):
        topology.add_atom("X", mdtraj.element.oxygen, topology.add_residue("X", chain))
    theirs = mdtraj.Trajectory(x.astype(np.float32), topology)
    theirs.unitcell_vectors = np.repeat(box[None], len(x), 0).astype(np.float32)
    assert curves.pairs == (("A", "A"), ("A", "B"), ("B", "B"))
    for (a, b), g in zip(((0, 0), (0, 1), (1, 1)), curves.g()):
        first, second = np.flatnonzero(types == a), np.flatnonzero(types == b)
        selected = theirs.topology.select_pairs(first, second)
        r, expected = mdtraj.compute_rdf(theirs, selected, (0.0, 0.9), n_bins=180)
        np.testing.assert_allclose(curves.r, r, atol=1e-6)
        # single precision moves a few selected across bin edges
        assert np.abs(g - expected).sum() < 0.004 * expected.sum()
        assert g.max() > 1.3


def test_pair_distribution_from_some_centres_is_that_from_all(write, monkeypatch):
    x = ideal_gas(4, np.eye(3) * 2, frames=60)
    x[:, ::2] = x[:, 1::2] + [0.3, 0, 0]
    trajectory = write(x)
    every = rdf.rdf(trajectory, r_max=0.5)
    angles = adf.adf(trajectory, {("A", "A"): 0.4})
    monkeypatch.setattr(pairs, "DISTANCES_A_FRAME", 120 * 30)
    some = rdf.rdf(trajectory, r_max=0.5)
    assert some.observed.sum() < 0.3 * every.observed.sum()
    peak = np.argmax(every.g()[0])
    assert some.r[peak] == pytest.approx(0.3, abs=0.005)
    assert some.g()[0, peak] == pytest.approx(every.g()[0, peak], rel=0.05)
    fewer = adf.adf(trajectory, {("A", "A"): 0.4})
    assert fewer.counts.sum() == pytest.approx(angles.counts.sum() / 4, rel=0.1)


def test_angles_in_diamond_are_tetrahedral(write):
    fcc = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cell = np.concatenate([fcc, fcc + 0.25])
    shifts = np.stack(np.meshgrid(*[range(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
    x = (cell[None] + shifts[:, None]).reshape(1, -1, 3) * 0.6 + 0.011
    curves = adf.adf(write(x, np.eye(3) * 1.2), {("A", "A"): 0.3})
    assert curves.counts.sum() == x.shape[1] * 6
    assert np.degrees(curves.edges[np.argmax(curves.p()[0])]) <= 109.4712
    assert np.degrees(curves.edges[np.argmax(curves.p()[0]) + 1]) >= 109.4712
    assert np.count_nonzero(curves.counts) == 1


@pytest.mark.parametrize("seed", [5, 6])
def test_angles_of_random_triplets_go_as_sine(write, seed):
    curves = adf.adf(write(ideal_gas(seed, TRICLINIC), TRICLINIC), {("A", "A"): 0.5})
    p = curves.p()[0]
    assert (p * np.diff(curves.edges)).sum() == pytest.approx(1)
    expected = -np.diff(np.cos(curves.edges)) / 2 * curves.counts.sum()
    chi2 = ((curves.counts.sum((0, 1)) - expected) ** 2 / expected).mean()
    assert 0.5 < chi2 < 2


def test_neighbours_of_two_types_need_their_own_radius(write):
    x = np.array([[[0, 0, 0], [0, 0, 0.2], [0.3, 0, 0], [0, 0.4, 0]]]) + 0.5
    trajectory = write(x, types=np.array([0, 0, 1, 1]))
    mixed = adf.adf(trajectory, {("A", "B"): 0.42})
    assert mixed.centres == ("A", "B") and mixed.counts.sum((0, 2)).tolist() == [1, 1]
    either = adf.adf(trajectory, {("A", "A"): 0.25, ("A", "B"): 0.35})
    assert either.counts.sum((0, 2)).tolist() == [1, 0]
    right = either.counts[0, 0].argmax()
    assert either.edges[right] <= np.pi / 2 + 1e-6 and either.edges[right + 1] > np.pi / 2 - 1e-6
    with pytest.raises(Unmeasurable, match="no bead has two neighbours within 0.350 nm"):
        adf.adf(trajectory, {("A", "B"): 0.35})


def test_angles_of_the_second_shell_are_between_its_neighbours_alone(write):
    box = np.eye(3) * 2
    simple = np.stack(np.meshgrid(*[range(4)] * 3, indexing="ij"), -1).reshape(1, -1, 3) * 0.5
    trajectory = write(simple + 0.011, box)
    first = adf.adf(trajectory, {("A", "A"): 0.6})
    second = adf.adf(trajectory, {("A", "A"): 0.8}, {("A", "A"): 0.6})
    # six neighbours along the axes; twelve along the diagonals of the faces
    for curves, cosines in ((first, {-1: 3, 0: 12}), (second, {-1: 6, -0.5: 24, 0: 12, 0.5: 24})):
        found = curves.counts.sum((0, 1))
        assert found.sum() == 64 * sum(cosines.values())
        for cosine, number in cosines.items():
            # single precision puts an angle at the edge of a bin on either side of it
            near = np.abs(curves.theta - np.arccos(cosine)) < 0.04
            assert found[near].sum() == 64 * number
    with pytest.raises(Unmeasurable, match="two neighbours in its second shell, within 0.650 nm"):
        adf.adf(trajectory, {("A", "A"): 0.65}, {("A", "A"): 0.6})


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_first_shell_ends_at_the_first_minimum(noise):
    r = np.arange(0.0025, 1, 0.005)

    def curve(r):
        return 1 + 2 * np.cos(2 * np.pi * (r - 0.28) / 0.2) * np.exp(-(r - 0.2) / 0.2)

    fine = np.linspace(0.3, 0.45, 10001)
    exact = fine[np.argmin(curve(fine))]
    g = np.where(r < 0.2, 0, curve(r)) + noise * np.random.default_rng(7).normal(size=len(r))
    assert shells.first_shell_radius(r, g) == pytest.approx(exact, abs=0.005)


def test_gas_has_no_first_shell(write):
    curves = rdf.rdf(write(ideal_gas(8, np.eye(3) * 2), np.eye(3) * 2), bin_width=0.02)
    curves.observed[..., :10] = 0
    with pytest.raises(Unmeasurable, match="no first shell"):
        shells.shell_radii(curves)


def test_pair_distribution_needs_room_and_company(write):
    with pytest.raises(Unmeasurable, match="at least 3 nm wide, this one is 2.000 nm"):
        rdf.rdf(write(ideal_gas(0, np.eye(3) * 2, frames=2)), r_max=1.5)
    with pytest.raises(Unmeasurable, match="makes no pair"):
        rdf.rdf(write(ideal_gas(0, np.eye(3) * 2, n=1)))


# motion


@pytest.mark.parametrize("seed", [0, 1])
def test_free_langevin_beads_move_and_diffuse_as_the_closed_form(write, seed):
    gamma, kt = 5.0, KB * TEMPERATURE / MASS
    trajectory = write(free_beads(seed, 6000, 60, gamma))
    within = diffusion.fit_range(120.0)
    assert within == (2.0, 12.0)
    lags = np.union1d(msd.lag_grid(0.02, 120.0), diffusion.fit_lags(0.02, within))
    found = msd.msd(trajectory, lags)
    t = found.lags
    # Displacements are relative to the centre of mass, which takes its share of independent beads.
    kt *= 1 - 1 / 60
    exact = 6 * kt / gamma * (t - (1 - np.exp(-gamma * t)) / gamma)
    z = (found.values() - exact) / found.stderr
    assert np.abs(z).max() < 6
    assert (found.stderr / exact).max() < 0.15
    np.testing.assert_allclose(found.values()[t < 1], exact[t < 1], rtol=0.04)
    slope = diffusion.diffusion(found, within)
    assert abs(slope.value - 1e-2 * kt / gamma) < 5 * slope.stderr
    assert slope.stderr < 0.1 * slope.value
    assert abs(slope.linearity - 1) < 6 * slope.linearity_stderr + 0.02


@pytest.mark.parametrize("seed", [2, 3])
def test_velocity_correlation_of_free_beads_is_that_of_averaged_velocities(write, seed):
    gamma, kt, d = 5.0, (1 - 1 / 60) * KB * TEMPERATURE / MASS, 0.02
    found = vacf.vacf(write(free_beads(seed, 6000, 60, gamma)))
    g = gamma * d
    k = np.arange(1, 101)
    exact = (
        3
        * kt
        / g**2
        * np.append(2 * (g - 1 + np.exp(-g)), np.exp(-g * (k - 1)) * (1 - np.exp(-g)) ** 2)
    )
    np.testing.assert_allclose(found.lags, np.arange(101) * d)
    assert found.blocks.mean(0)[0] == pytest.approx(exact[0], rel=0.02)
    difference = found.values() - exact / exact[0]
    assert found.values()[0] == 1
    assert np.abs(difference[1:] / found.stderr[1:]).max() < 5
    assert found.stderr.max() < 0.01


def test_beads_of_every_type_are_followed_however_many_there_are(write, monkeypatch):
    rng = np.random.default_rng(0)
    types = np.arange(50) % 2
    x = np.cumsum(rng.normal(size=(60, 50, 3)) * np.where(types, 0.02, 0.01)[:, None], axis=0)
    with write(x, types=types) as trajectory:
        whole = msd.msd(trajectory, [0.02])
        monkeypatch.setattr(sampling, "MAX_BEADS", 25)
        some = msd.msd(trajectory, [0.02])
    assert some.type_names == whole.type_names == ("A", "B")
    assert some.n_beads.tolist() == [13, 13]
    np.testing.assert_allclose(some.blocks.mean(0), whole.blocks.mean(0), rtol=0.1)


@pytest.mark.parametrize("seed", [0, 1000])
def test_error_bars_of_displacements_tell_the_spread(write, seed):
    step, lags, runs = 0.01, np.array([0.1, 1.0, 2, 5, 8, 10, 20]), 120
    squares, claimed = np.zeros(8), np.zeros(8)
    for k in range(runs):
        found = msd.msd(write(walkers(seed + k, 1000, 4, step), interval=0.1), lags)
        d = diffusion.diffusion(found, (2.0, 10.0))
        # Of four walkers' steps, three quarters are relative to their centre.
        squares[:7] += (found.values() - 0.75 * 3 * step**2 * lags / 0.1) ** 2
        squares[7] += (d.value - 0.75 * 1e-2 * step**2 / 0.2) ** 2
        claimed += np.append(found.stderr, d.stderr) ** 2
    ratio = np.sqrt(claimed / squares)
    assert ratio.min() > 0.78 and ratio.max() < 1.28


def test_overlap_is_corrected_as_for_brownian_motion():
    rng = np.random.default_rng(11)
    n, lag, span = 4000, 100, 400
    x = np.cumsum(rng.normal(size=(n, span + lag)), axis=1)
    squares = (x[:, lag:] - x[:, :-lag]) ** 2
    naive = squares.reshape(n, 10, span // 10).mean(2)
    naive = np.sqrt((naive.var(axis=1, ddof=1) / 10).mean())
    true = squares.mean(1).std()
    assert true / naive == pytest.approx(blocks.overlap_factor(lag, span, 10), rel=0.06)
    assert blocks.overlap_factor(1e-4, 1, 10) == pytest.approx(1, abs=1e-3)


def test_displacements_do_not_depend_on_how_they_are_read(write, monkeypatch):
    x = walkers(12, 900, 5)
    trajectory = write(x, types=np.array([0, 1, 1, 0, 1]))
    lags = [0.02, 0.1, 0.46, 1.2, 3.0]
    whole = msd.msd(trajectory, lags)
    monkeypatch.setattr(sampling, "READ_BYTES", 37 * 24 * 5)
    parts = msd.msd(trajectory, lags)
    np.testing.assert_allclose(parts.blocks, whole.blocks, rtol=1e-10)
    drift = trajectory.positions().mean(1)
    moving = trajectory.positions() - drift[:, None]
    for k, steps in enumerate((1, 5, 23)):
        squares = ((moving[steps:] - moving[:-steps]) ** 2).sum(-1)
        expected = [squares[:, [0, 3]].mean(), squares[:, [1, 2, 4]].mean()]
        np.testing.assert_allclose(whole.blocks[..., k].mean(0), expected, rtol=2e-3)
        expected = ((drift[steps:] - drift[:-steps]) ** 2).sum(-1).mean()
        assert whole.drift[k] == pytest.approx(expected, rel=2e-3)
    assert whole.type_names == ("A", "B")


def test_memory_does_not_grow_with_the_trajectory(write, monkeypatch):
    monkeypatch.setattr(sampling, "READ_BYTES", 1 << 16)
    peaks = []
    for frames in (2000, 16000):
        trajectory = write(walkers(13, frames, 20) % 2)
        lags = msd.lag_grid(0.02, 40.0)
        msd.msd(trajectory, lags)
        tracemalloc.start()
        msd.msd(trajectory, lags)
        vacf.vacf(trajectory)
        rdf.rdf(trajectory, max_frames=100)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.4 * peaks[0]


def test_lags_run_from_a_frame_to_a_fifth_of_the_trajectory():
    np.testing.assert_allclose(
        msd.lag_grid(0.02, 240.0), [0.02, 0.04, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    )
    np.testing.assert_allclose(msd.lag_grid(0.02, 10.0), [0.02, 0.04, 0.1, 0.2, 0.5, 1, 2])
    np.testing.assert_allclose(msd.lag_grid(2.0, 1000.0), [2, 4, 10, 20, 50, 100, 200])
    assert len(msd.lag_grid(0.02, 0.04)) == 0


def test_diffusion_is_fitted_where_the_trajectory_allows():
    assert diffusion.fit_range(240) == (2, 20)
    assert diffusion.fit_range(20) == (2, 4)
    assert diffusion.fit_range(1e4, frame_interval=10) == (10, 100)
    assert diffusion.fit_range(40, frame_interval=2) == (2, 8)
    with pytest.raises(Unmeasurable, match="needs 16 ps of trajectory; this one has 10 ps"):
        diffusion.fit_range(10)


def test_temperature_does_not_count_the_drift(write):
    rng = np.random.default_rng(14)
    v = rng.normal(size=(400, 50, 3)) * np.sqrt(KB * TEMPERATURE / MASS)
    value, error = temperature.temperature(write(np.zeros_like(v), velocities=v + 3.0))
    assert abs(value - TEMPERATURE) < 4 * error
    assert error == pytest.approx(TEMPERATURE * np.sqrt(2 / 3 / v[..., 0].size), rel=0.6)
    held = v - v.mean(1, keepdims=True)
    assert temperature.temperature(write(np.zeros_like(v), velocities=held))[0] == pytest.approx(
        value, rel=1e-5
    )
    with pytest.raises(Unmeasurable, match="no velocities"):
        temperature.temperature(write(v))


def test_velocities_need_frames_that_fit(write):
    trajectory = write(walkers(0, 300, 3))
    assert vacf.vacf(trajectory, 0.04).interval == 0.04
    with pytest.raises(Unmeasurable, match="can't be had from frames 0.02 ps apart"):
        vacf.vacf(trajectory, 0.05)
    with pytest.raises(Unmeasurable, match="need 0.1 ps or less"):
        vacf.vacf(write(walkers(0, 300, 3), interval=0.5))
    with pytest.raises(Unmeasurable, match="needs 4 ps of trajectory"):
        vacf.vacf(trajectory, stop=50)


# figures


def liquid(seed, frames=1000):
    """Beads that rattle about the sites of a lattice and diffuse by hops of whole box vectors, so
    that the structure stays."""
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) * 0.5
    rng = np.random.default_rng(seed)
    hops = rng.choice([-2.0, 0.0, 2.0], p=[0.005, 0.99, 0.005], size=(frames, 64, 3))
    return grid + 0.03 * rng.normal(size=(frames, 64, 3)) + np.cumsum(hops, axis=0)


SCHEMA = (
    "rdf_l1",
    "adf_l1",
    "diffusion_cm2_per_s",
    "diffusion_stderr",
    "msd_nm2",
    "vacf",
    "temperature_K",
    "friction_per_ps",
    "timestep_fs",
)


def test_figures_are_numbers_or_none_with_a_reason(write):
    reference = measurement.measure(write(liquid(0)))
    model = measurement.measure(write(liquid(1)), reference)
    poor = measurement.measure(write(walkers(0, 3, 1)), reference)
    found = (
        metrics.metrics(reference),
        metrics.noise_floor(reference),
        metrics.metrics(
            model, reference, friction_per_ps=10.0, timestep_fs=5.0, conserves_momentum=True
        ),
        metrics.metrics(poor, reference),
    )
    for figures in found:
        json.dumps(figures, allow_nan=False)
        for name in SCHEMA:
            assert figures[name] is not None or len(figures["reasons"][name]) > 10
        assert all(figures[name] is None for name in figures["reasons"])
        missing = {name for name, value in figures.items() if value is None}
        assert missing == set(figures["reasons"])
    floor, m, empty = found[1:]
    assert m["friction_per_ps"] == 10 and m["timestep_fs"] == 5
    assert 0 < m["rdf_l1"] < 0.1 and 0 < floor["rdf_l1"] < 0.1
    assert 0 < m["rdf_l1_stderr"] < m["rdf_l1"] and 0 < m["vacf_rms"] < 0.1
    assert [lag for lag, _ in m["msd_nm2"]] == [0.02, 0.04, 0.1, 0.2, 0.5, 1, 2]
    assert all(abs(ratio - 1) < 5 * error for _, ratio, error in m["msd_ratio"])
    reasons = {"the trajectory holds no velocities", "the stress of this run is not known"}
    assert set(m["reasons"].values()) == reasons
    assert 0 < m["second_adf_l1"] < 0.1 and 0 < floor["second_adf_l1"] < 0.1
    assert {"temperature_K", "temperature_stderr", "viscosity_mPa_s"} < set(m["reasons"])
    assert empty["reasons"]["rdf_l1"] == "one bead alone makes no pair"
    assert all(empty[name] is None for name in SCHEMA)


def test_a_run_does_not_differ_from_itself(write):
    trajectory = write(liquid(2))
    reference = measurement.measure(trajectory)
    again = metrics.metrics(measurement.measure(trajectory, reference), reference)
    assert again["rdf_l1"] == again["adf_l1"] == again["vacf_rms"] == 0
    assert all(ratio == 1 for _, ratio, _ in again["msd_ratio"])
    figures, floor = metrics.metrics(reference), metrics.noise_floor(reference)
    for name in OBSERVABLES:
        found = status(name, again, figures, floor)
        assert (found.status, found.deviation) == (GOOD, 0)
    assert list(status_by_lag(again, figures)) == [0.02, 0.04, 0.1, 0.2, 0.5, 1, 2]


def test_distances_have_their_definition(write):
    a, b = write(liquid(3)), write(liquid(4) * 1.02, np.eye(3) * 2.04)
    reference = measurement.measure(a)
    model = measurement.measure(b, reference)
    figures = metrics.metrics(model, reference)
    g_ref, g = (np.array(metrics.metrics(m, reference)["rdf"][0]["g"]) for m in (reference, model))
    assert figures["rdf_l1"] == pytest.approx(np.abs(g - g_ref).sum() / g_ref.sum(), rel=1e-4)
    assert len(g) == 200 and model.radii == reference.radii
    curve, other = (metrics.metrics(m, reference)["adf"][0] for m in (reference, model))
    difference = np.abs(np.array(curve["p"]) - other["p"])
    assert difference.sum() * np.pi / 90 == pytest.approx(figures["adf_l1"], rel=1e-4)
    assert figures["rdf_l1"] > 5 * figures["rdf_l1_stderr"]
    found = status("rdf_l1", figures, metrics.metrics(reference), metrics.noise_floor(reference))
    assert found.status == MISSED and found.deviation == figures["rdf_l1"]


def test_noise_floor_compares_the_halves(write):
    trajectory = write(liquid(5))
    reference = measurement.measure(trajectory)
    first = rdf.rdf(trajectory, stop=500)
    second = rdf.rdf(trajectory, start=500)
    assert metrics.noise_floor(reference)["rdf_l1"] == pytest.approx(
        rdf.rdf_l1(second, first), rel=0.01
    )


def test_drift_of_the_whole_system_is_noted(write):
    still = metrics.metrics(measurement.measure(write(liquid(6))))
    x = liquid(6) + np.linspace(0, 40, 1000)[:, None, None]
    moving = metrics.metrics(measurement.measure(write(x)))
    assert still["notes"] == []
    assert any("drift of the whole system" in note for note in moving["notes"])


def test_two_types_have_their_own_diffusion(write):
    x = walkers(7, 2000, 80)
    x[:, 40:] *= 2
    types = np.repeat([0, 1], 40)
    figures = metrics.metrics(measurement.measure(write(x, types=types)))
    slow, fast = (figures["diffusion_by_type"][name] for name in "AB")
    error = fast["stderr"] + 4 * slow["stderr"]
    assert abs(fast["cm2_per_s"] - 4 * slow["cm2_per_s"]) < 4 * error
    assert figures["diffusion_cm2_per_s"] == pytest.approx(
        (slow["cm2_per_s"] + fast["cm2_per_s"]) / 2
    )
    own = [np.array(figures["msd_by_type"][name]["msd_nm2"])[:, 1] for name in "AB"]
    assert np.mean(own, 0) == pytest.approx(np.array(figures["msd_nm2"])[:, 1], rel=1e-6)
    assert own[1].mean() / own[0].mean() == pytest.approx(4.0, rel=0.1)
    assert [curve["types"] for curve in figures["rdf"]] == [["A", "A"], ["A", "B"], ["B", "B"]]


def test_analysis_needs_no_torch(tmp_path):
    # In another folder, where it is the installed package; that one loads its plugin into OpenMM.
    code = (
        "import sys, openmm_cgadv.report.page, openmm_cgadv.analysis.metrics; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
