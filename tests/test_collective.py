"""Collective motion against closed forms: free beads, exact shear waves, rigid bodies."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from openmm_cgadv.analysis import (
    currents,
    displacement_correlation,
    measurement,
    metrics,
    rdf,
    sampling,
    shells,
    transverse_viscosity,
    van_hove,
    wave_vectors,
)
from openmm_cgadv.analysis.blocks import Unmeasurable
from openmm_cgadv.analysis.finite_size import box_correction
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.units import KB, MPA_S

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
BRICK = np.diag([2.0, 2.2, 2.4])
TRICLINIC = np.array([[2.2, 0, 0], [0.5, 2.1, 0], [-0.6, 0.4, 2.0]])


@pytest.fixture
def write(tmp_path):
    """Stores positions [T, N, 3], and velocities, and opens them as a trajectory."""
    opened = []

    def make(x, box, velocities=None, *, masses=18.0, types=None, interval=0.02):
        n = x.shape[1]
        types = np.zeros(n, int) if types is None else types
        path = tmp_path / f"{len(opened)}.h5"
        writer = BeadWriter(
            path,
            np.zeros(n) + masses,
            types,
            ("A", "B")[: max(types) + 1],
            TEMPERATURE,
            interval,
            velocities=velocities is not None,
        )
        box = np.broadcast_to(box, (len(x), 3, 3))
        for k in range(0, len(x), 500):
            part = slice(k, k + 500)
            writer.append(x[part], box[part], None if velocities is None else velocities[part])
        writer.finish()
        opened.append(BeadTrajectory.open(path))
        return opened[-1]

    yield make
    for trajectory in opened:
        trajectory.close()


def free_beads(seed, frames, masses, gamma, box, dt=0.02):
    """Exact trajectory of free Langevin beads, positions and velocities [T, N, 3]."""
    rng = np.random.default_rng(seed)
    n, e = len(masses), np.exp(-gamma * dt)
    var_v = 1 - e**2
    var_x = (2 * gamma * dt - 3 + 4 * e - e**2) / gamma**2
    cov = (1 - e) ** 2 / gamma
    scale = np.sqrt(KT / masses)[:, None]
    noise = rng.normal(size=(2, frames, n, 3)) * scale
    kick_v = np.sqrt(var_v) * noise[0]
    kick_x = cov / np.sqrt(var_v) * noise[0] + np.sqrt(var_x - cov**2 / var_v) * noise[1]
    x, v = np.zeros((2, frames, n, 3))
    x[0], v[0] = rng.random((n, 3)) @ box, rng.normal(size=(n, 3)) * scale
    for k in range(1, frames):
        x[k] = x[k - 1] + v[k - 1] * (1 - e) / gamma + kick_x[k]
        v[k] = e * v[k - 1] + kick_v[k]
    return x, v


def walkers(seed, frames, start, step=0.01):
    """Beads that move by themselves."""
    moves = np.random.default_rng(seed).normal(size=(frames, len(start), 3))
    return start + np.cumsum(moves * step, axis=0)


def lattice(n, box):
    return np.stack(np.meshgrid(*[np.arange(n) / n] * 3, indexing="ij"), -1).reshape(-1, 3) @ box


def shear_waves(seed, frames, box, rate, dt=0.02):
    """Beads held on a lattice, whose velocities are those of a field of waves: each component of
    each wave decays at `rate(k)`, 1/ps, so that C(k, t) = exp(-rate t) exactly."""
    rng = np.random.default_rng(seed)
    x = lattice(5, box)
    numbers, _ = wave_vectors.wave_vectors(box)
    k = numbers @ (2 * np.pi * np.linalg.inv(box)).T
    keep = np.exp(-rate(np.linalg.norm(k, axis=1)) * dt)[:, None]
    noise = rng.normal(size=(frames, len(k), 3, 2)).view(complex)[..., 0]
    wave = np.empty_like(noise)
    wave[0] = noise[0]
    for t in range(1, frames):
        wave[t] = keep * wave[t - 1] + np.sqrt(1 - keep**2) * noise[t]
    v = np.einsum("tkc,kn->tnc", wave, np.exp(1j * k @ x.T), optimize=True).real
    return np.broadcast_to(x, v.shape), v * 0.1


# wave vectors


@pytest.mark.parametrize(
    "box, counts, shortest",
    [
        (np.eye(3) * 2, [3, 6, 4, 3], np.pi),
        ([[2, 0, 0], [0, 2, 0], [1, 1, np.sqrt(2)]], [4, 3], np.sqrt(1.5) * np.pi),
        (np.diag([1.0, 1, 4]), [1, 1], np.pi / 2),
    ],
    ids=["cube", "dodecahedron", "column"],
)
def test_wave_vectors_of_known_boxes(box, counts, shortest):
    numbers, group = wave_vectors.wave_vectors(box)
    length = np.linalg.norm(numbers @ (2 * np.pi * np.linalg.inv(box)).T, axis=1)
    assert np.bincount(group).tolist()[: len(counts)] == counts
    assert length[0] == pytest.approx(shortest)
    assert (np.diff(group) >= 0).all() and (length <= 2.01 * length[0]).all()
    everything = {tuple(n) for n in numbers} | {tuple(-n) for n in numbers}
    assert len(everything) == 2 * len(numbers) and (0, 0, 0) not in everything


def test_no_wave_vector_is_missed_in_a_skewed_box():
    box = np.array([[2.0, 0, 0], [5.3, 2.1, 0], [-3.9, 4.6, 2.2]])
    numbers, _ = wave_vectors.wave_vectors(box)
    every = np.stack(np.meshgrid(*[np.arange(-20, 21)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(every @ np.linalg.inv(box).T, axis=1)
    found = np.linalg.norm(numbers @ np.linalg.inv(box).T, axis=1)
    assert found[0] == pytest.approx(length[length > 0].min())
    assert len(numbers) == np.count_nonzero((length > 0) & (length < 2.001 * found[0])) / 2


# currents


def test_currents_are_those_of_their_definition(write, monkeypatch):
    masses = np.array([2.0, 18.0, 40.0, 7.0])
    boxes = TRICLINIC * np.linspace(0.97, 1.03, 600)[:, None, None]
    x, v = free_beads(0, 600, masses, 2.0, TRICLINIC)
    trajectory = write(x, boxes, v, masses=masses)
    found = currents.currents(trajectory)
    monkeypatch.setattr(sampling, "READ_BYTES", 41 * 24 * 4)
    in_parts = currents.currents(trajectory)
    np.testing.assert_allclose(in_parts.transverse, found.transverse, rtol=1e-4, atol=1e-6)

    numbers, group = wave_vectors.wave_vectors(boxes.mean(0))
    n_lags, origins = len(found.lags), 600 - len(found.lags) + 1
    assert n_lags == 61
    for g in range(3):
        along, across = [], []
        for number in numbers[group == g]:
            k = number @ (2 * np.pi * np.linalg.inv(boxes.mean(0))).T
            s = np.einsum("tnc,tcd->tnd", x, np.linalg.inv(boxes))
            j = np.einsum("n,tnc,tn->tc", masses, v, np.exp(-2j * np.pi * s @ number))
            parallel = j @ k / np.linalg.norm(k)
            rest = j - parallel[:, None] * k / np.linalg.norm(k)
            for out, some, share in ((along, parallel[:, None], 1), (across, rest, 2)):
                out.append(
                    [
                        np.vdot(some[:origins], some[t : t + origins]).real / share
                        for t in range(n_lags)
                    ]
                )
        scale = origins * KT * masses.sum()
        for mine, theirs in ((found.longitudinal, along), (found.transverse, across)):
            expected = np.mean(theirs, axis=0) / scale
            np.testing.assert_allclose(mine[:, g].mean(0), expected, atol=1e-3 * expected[0])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("box", [np.eye(3) * 2, TRICLINIC], ids=["cube", "triclinic"])
def test_currents_of_free_beads_decay_as_the_closed_form(write, box, seed):
    gamma, masses = 5.0, np.repeat([12.0, 30.0], 40)
    x, v = free_beads(seed, 4000, masses, gamma, box)
    found = currents.currents(write(x, box, v, masses=masses, types=np.repeat([0, 1], 40)))
    t, k = found.lags, found.k[:, None, None]
    width = KT / masses[:, None] * (t / gamma - (1 - np.exp(-gamma * t)) / gamma**2)
    slope = KT / masses[:, None] / gamma * (1 - np.exp(-gamma * t))
    start = KT / masses[:, None]
    flight = np.exp(-gamma * t - k**2 * width)
    turning = (start * np.exp(-gamma * t) - (k * slope) ** 2) / start * np.exp(-(k**2) * width)
    np.testing.assert_allclose(found.transverse[..., 0].mean(0), 1, atol=0.25)
    for component, exact in (("transverse", flight), ("longitudinal", turning)):
        exact = np.average(exact, axis=1, weights=masses)
        error = found.stderr(component)
        some = np.array([2, 5, 10, 20, 50])
        z = (found.values(component) - exact)[:, some] / error[:, some]
        assert np.abs(z).max() < 12 and np.sqrt((z**2).mean()) < 2.5
        assert error.max() < 0.15
    shear = transverse_viscosity.apparent_viscosity(found)
    integral = np.trapezoid(np.average(flight, axis=1, weights=masses), t, axis=1)
    exact = MPA_S * found.density / (found.k**2 * integral)
    assert np.abs((shear.values - exact) / shear.stderr).max() < 12
    assert (shear.stderr < 0.35 * exact).all()
    rate, error = transverse_viscosity.damping(shear)
    assert abs(rate - gamma) < 8 * error + 0.3 and error < 0.25 * gamma
    with pytest.raises(Unmeasurable, match="grows with the box and has no limit"):
        transverse_viscosity.viscosity(shear)


def test_viscosity_of_exact_shear_waves_and_its_error_bar(write):
    box, runs = np.eye(3) * 2, 16
    density = 125 * 18 / 8

    def measure(seed, curvature):
        nu = 0.5
        x, v = shear_waves(seed, 2500, box, lambda k: nu * k**2 / (1 + curvature * k**2))
        shear = transverse_viscosity.apparent_viscosity(currents.currents(write(x, box, v)))
        return (*transverse_viscosity.viscosity(shear), *transverse_viscosity.damping(shear), shear)

    exact = 0.5 * density * MPA_S
    found = [measure(seed, 0.01 * (seed % 2)) for seed in range(runs)]
    value, error, rate, rate_error = np.array([one[:4] for one in found]).T
    # the mean of runs, and the spread within what the error bars claim
    z = (value / exact - 1) / error * exact
    assert abs((value / exact).mean() - 1) < 4.5 * np.sqrt((error**2).sum()) / runs / exact
    assert 0.3 < np.sqrt((z**2).mean()) < 2.2
    assert np.median(error) < 0.2 * exact
    assert abs(rate[::2].mean()) < 6 * np.sqrt((rate_error[::2] ** 2).sum()) / (runs / 2)
    assert rate[1::2].mean() < 0.5 * exact / (density * MPA_S) * np.pi**2
    k = found[1][4].k
    by_k = np.mean([one[4].values for one in found[1::2]], axis=0)
    np.testing.assert_allclose(by_k, exact / (1 + 0.01 * k**2), rtol=0.12)


def test_currents_need_velocities_and_frames_that_follow_them(write):
    x = lattice(2, BRICK)[None] + np.zeros((1500, 1, 1))
    noise = np.random.default_rng(0).normal(size=x.shape)
    with pytest.raises(Unmeasurable, match="holds no velocities"):
        currents.currents(write(x, BRICK))
    with pytest.raises(Unmeasurable, match="need 5 ps and 20 frames of trajectory; this one has 4"):
        currents.currents(write(x, BRICK, noise), stop=201)
    with pytest.raises(Unmeasurable, match="no collective motion"):
        currents.currents(write(x[:, :1], BRICK, noise[:, :1]))
    with pytest.raises(Unmeasurable, match="frames are 20 fs apart, by when the"):
        transverse_viscosity.apparent_viscosity(currents.currents(write(x, BRICK, noise)))
    slow = shear_waves(0, 1500, np.eye(3) * 2, lambda k: 0.02 * k**2)
    with pytest.raises(Unmeasurable, match="has not decayed to its noise within 1.5 ps"):
        transverse_viscosity.apparent_viscosity(
            currents.currents(write(slow[0], np.eye(3) * 2, slow[1]))
        )


def test_memory_does_not_grow_with_the_trajectory(write, monkeypatch):
    monkeypatch.setattr(sampling, "READ_BYTES", 1 << 15)
    monkeypatch.setattr(currents, "LONGEST_LAG", 1.0)
    monkeypatch.setattr(displacement_correlation, "PAIR_ORIGINS", 30)
    monkeypatch.setattr(van_hove, "VAN_HOVE_ORIGINS", 30)
    peaks = []
    for frames in (1500, 12000):
        x = np.random.default_rng(0).normal(size=(frames, 8, 3)).astype(np.float32)
        trajectory = write(x, np.eye(3) * 2, x)
        shells = [{("A", "A"): 0.5}]
        displacement_correlation.displacement_correlation(trajectory, shells)
        tracemalloc.start()
        currents.currents(trajectory)
        displacement_correlation.displacement_correlation(trajectory, shells)
        van_hove.van_hove(trajectory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.4 * peaks[0]


# displacement correlation

SHELLS = [{("A", "A"): 0.45}, {("A", "A"): 0.7}]


@pytest.mark.parametrize("box", [BRICK, TRICLINIC], ids=["brick", "triclinic"])
def test_beads_that_move_by_themselves_share_nothing(write, monkeypatch, box):
    monkeypatch.setattr(displacement_correlation, "PAIR_ORIGINS", 150)
    start = np.random.default_rng(1).random((150, 3)) @ box
    types = np.arange(150) % 2
    x = walkers(2, 2000, start) * (1 + types)[:, None]
    found = displacement_correlation.displacement_correlation(
        write(x, box, types=types, masses=np.where(types, 30.0, 12.0)),
        [{("A", "A"): 0.45, ("A", "B"): 0.4}, {("A", "A"): 0.7, ("A", "B"): 0.7}],
    )
    np.testing.assert_allclose(found.lags, [0.1, 0.2, 0.5, 1, 2])
    assert found.shells == ("first_shell", "second_shell")
    z = found.pair_correlation() / found.pair_stderr
    assert np.sqrt((z**2).mean()) < 2.5 and found.pair_stderr.max() < 0.08
    assert np.abs(found.pair_correlation()).max() < 0.3
    z = (found.mode_ratio() - 1) / found.mode_stderr
    assert np.sqrt((z**2).mean()) < 3 and found.mode_stderr.max() < 0.5


def test_what_moves_as_one_shares_everything(write):
    box = np.eye(3) * 2
    drift = walkers(3, 600, np.zeros((1, 3)))
    types = np.arange(125) % 2
    crystal = write(lattice(5, box) + drift, box, types=types, masses=10 + 30.0 * types)
    shells = [dict.fromkeys((("A", "A"), ("A", "B"), ("B", "B")), r) for r in (0.5, 0.6)]
    found = displacement_correlation.displacement_correlation(crystal, shells)
    np.testing.assert_allclose(found.pair_correlation(), 1, atol=2e-3)
    start = np.random.default_rng(4).random((100, 3)) @ TRICLINIC
    glass = displacement_correlation.displacement_correlation(
        write(start + drift, TRICLINIC), SHELLS
    )
    along, across = glass.pair_correlation()
    np.testing.assert_allclose(along + 2 * across, 3, atol=5e-3)


@pytest.mark.parametrize("box", [BRICK, TRICLINIC], ids=["brick", "triclinic"])
def test_displacements_along_a_bond_are_told_from_those_across(write, box):
    rng = np.random.default_rng(5)
    centre, axis = rng.random((40, 3)) @ box, rng.normal(size=(40, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    moves = np.cumsum(1e-4 * rng.normal(size=(1500, 40, 3)), axis=0)
    along = np.einsum("tnc,nc->tn", moves, axis)[..., None] * axis
    pairs = np.stack([centre + 0.05 * axis + moves, centre - 0.05 * axis + 2 * along - moves], 2)
    found = displacement_correlation.displacement_correlation(
        write(pairs.reshape(1500, 80, 3), box), [{("A", "A"): 0.12}, {("A", "A"): 0.9}]
    )
    # the few other pairs in the first shell share nothing
    others = found.pair_correlation()[:, 0, :4]
    np.testing.assert_allclose(others[0], 1, atol=0.25)
    np.testing.assert_allclose(others[1], -1, atol=0.25)
    assert np.abs(found.pair_correlation()[:, 1]).max() < 0.3


def test_shells_of_types_are_those_of_their_definition(write):
    start = np.array([[0, 0, 0], [0, 0, 0.2], [0.3, 0, 0], [0, 0.4, 0]]) + 0.5
    types = np.array([0, 0, 1, 1])
    x = walkers(6, 400, start, 1e-4) + walkers(7, 400, start, 1e-4)[:, :1] - start[:1]
    trajectory = write(x, BRICK, types=types)
    found = displacement_correlation.displacement_correlation(
        trajectory, [{("A", "A"): 0.25, ("A", "B"): 0.33}, {("A", "B"): 0.38}]
    )
    steps = np.rint(found.lags / 0.02).astype(int)
    origins = np.linspace(0, 399 - steps[-1], 1 + (399 - steps[-1]) // steps[0]).astype(int)
    assert steps.tolist() == [5, 10, 25] and found.n_blocks == 10
    for shell, pairs in enumerate(([(0, 1), (0, 2)], [(1, 2)])):
        for n, step in enumerate(steps):
            d = x[origins + step] - x[origins]
            third = np.stack([(d[:, types == t] ** 2).sum(-1).mean(1) / 3 for t in (0, 1)])
            along, across, norm = 0, 0, 0
            for i, j in pairs:
                unit = x[origins, j] - x[origins, i]
                unit /= np.linalg.norm(unit, axis=1, keepdims=True)
                both = (d[:, i] * unit).sum(1) * (d[:, j] * unit).sum(1)
                along += both.sum()
                across += ((d[:, i] * d[:, j]).sum(1) - both).sum() / 2
                norm += np.sqrt(third[types[i]] * third[types[j]]).sum()
            np.testing.assert_allclose(
                found.pair_correlation()[:, shell, n], [along / norm, across / norm], atol=2e-3
            )
    only = displacement_correlation.displacement_correlation(
        trajectory, [{("B", "B"): 0.4}, {("B", "B"): 0.4}]
    )
    assert np.isnan(only.pair_correlation()).all()


def test_shells_need_room_and_time(write):
    trajectory = write(walkers(0, 400, lattice(3, BRICK)), BRICK)
    with pytest.raises(Unmeasurable, match="a shell of 1.200 nm is above half the box"):
        displacement_correlation.displacement_correlation(trajectory, [{("A", "A"): 1.2}])
    with pytest.raises(Unmeasurable, match="no lag of .* is between a frame and a tenth"):
        displacement_correlation.displacement_correlation(trajectory, SHELLS, stop=20)


def test_second_shell_ends_at_the_second_minimum():
    r = np.arange(0.0025, 1, 0.005)

    def curve(r):
        return 1 + 2 * np.cos(2 * np.pi * (r - 0.28) / 0.2) * np.exp(-(r - 0.2) / 0.2)

    fine = np.linspace(0.5, 0.65, 10001)
    exact = fine[np.argmin(curve(fine))]
    g = np.where(r < 0.2, 0, curve(r)) + 0.005 * np.random.default_rng(7).normal(size=len(r))
    first = shells.first_shell_radius(r, g)
    assert shells.second_shell_radius(r, g, first) == pytest.approx(exact, abs=0.01)
    with pytest.raises(Unmeasurable, match="no second shell up to 1.00 nm"):
        shells.second_shell_radius(r, np.minimum(g, 0.5 + 0.3 * r), 0.9)


# van Hove


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("box", [BRICK, TRICLINIC], ids=["brick", "triclinic"])
def test_gas_forgets_at_once_and_spreads_as_a_gaussian(write, box, seed):
    start = np.random.default_rng(seed).random((120, 3)) @ box
    types = np.arange(120) % 3 // 2
    found = van_hove.van_hove(write(walkers(seed, 1000, start, 0.02), box, types=types), (0.2, 1.0))
    assert found.pairs == (("A", "A"), ("A", "B"), ("B", "B"))
    # a count is correlated over origins: only its mean over bins is held to its error
    counts, expected = found.observed.sum((0, -1)), found.expected.sum((0, -1))
    np.testing.assert_allclose(counts, np.broadcast_to(expected, counts.shape), rtol=0.15)
    np.testing.assert_allclose(found.distinct()[:, 0, 40:].mean(-1), 1, atol=0.08)
    for lag, own in zip(found.lags, found.self_part()):
        width = 0.02**2 * lag / 0.02
        density = np.sqrt(2 / np.pi / width**3) * found.r**2 * np.exp(-(found.r**2) / (2 * width))
        assert np.abs(own - density).sum(-1).max() * 0.01 < 0.12
        np.testing.assert_allclose(own.sum(-1) * 0.01, 1, atol=0.01)


def test_at_rest_the_distinct_part_is_the_pair_distribution(write):
    rng = np.random.default_rng(8)
    x = np.repeat((lattice(5, TRICLINIC) + 0.04 * rng.normal(size=(125, 3)))[None], 300, 0)
    x = x + rng.integers(-2, 3, size=(1, 125, 3)) @ TRICLINIC
    trajectory = write(x, TRICLINIC, types=np.arange(125) % 2)
    found = van_hove.van_hove(trajectory, (0.2,))
    curves = rdf.rdf(trajectory, bin_width=van_hove.VAN_HOVE_BIN)
    assert found.pairs == curves.pairs and found.distinct().max() > 1.5
    g = curves.g()[..., : len(found.r)]
    # single precision moves a few pairs across bin edges
    assert np.abs(found.distinct()[0] - g).sum() < 0.01 * g.sum()
    assert found.self_part()[0, :, 0] * 0.01 == pytest.approx(1)


def test_a_hole_fills_when_another_bead_comes(write):
    step = lattice(3, np.eye(3) * 1.8)[:, None] + 0.1
    rows = np.arange(400)[:, None, None] * np.array([0.6, 0, 0]) / 30
    trajectory = write(step[:, 0] + rows, np.eye(3) * 1.8)
    g = van_hove.van_hove(trajectory, (0.3, 0.6)).distinct()[:, 0]
    assert g[0, :5].max() == 0 and g[1, :1] > 10


# figures


def test_figures_of_collective_motion_are_given_with_reasons(write):
    box = np.eye(3) * 2
    rng = np.random.default_rng(9)
    hops = rng.choice([-2.0, 0.0, 2.0], p=[0.005, 0.99, 0.005], size=(1000, 64, 3))
    x = lattice(4, box) + 0.03 * rng.normal(size=(1000, 64, 3)) + np.cumsum(hops, axis=0)
    still = measurement.measure(write(x, box))
    figures = metrics.metrics(still)
    lags = [lag for lag, _, _ in figures["displacement_correlation"]["transverse"]["first_shell"]]
    assert lags == [0.1, 0.2, 0.5, 1.0, 2.0]
    assert set(figures["collective_displacement"]) == {"transverse", "longitudinal"}
    for name in ("viscosity_mPa_s", "transverse_current", "shear_damping_per_ps"):
        assert figures[name] is None
        assert figures["reasons"][name] == "the trajectory holds no velocities"
    _, v = free_beads(0, 1000, np.full(64, 18.0), 15.0, box)
    moving = metrics.metrics(measurement.measure(write(x, box, v), still), still)
    assert len(moving["transverse_current"]) == 101
    assert moving["transverse_current"][0] == [0.0, 1.0]
    assert [len(one) for one in moving["apparent_viscosity"]] == [3] * 4
    assert "no limit" in moving["reasons"]["viscosity_mPa_s"]
    water = replace(
        measurement.measure(write(x, box, v), still),
        viscosity=(0.7, 0.1),
        box_correction=(4e-6, 1e-6),
    )
    assert metrics.metrics(water, conserves_momentum=True)["viscosity_mPa_s"] == 0.7
    known = metrics.metrics(water, conserves_momentum=False)
    for name in ("viscosity_mPa_s", "diffusion_box_correction_cm2_per_s"):
        assert known[name] is None and "takes momentum out of the liquid" in known["reasons"][name]
    apart = metrics.metrics(
        measurement.measure(write(x, box, v), still, skip=measurement.SLOW), still
    )
    assert apart["reasons"]["van_hove_self"] == "it was left out"
    same = set(apart) - {"reasons"} - {n for n in apart if apart[n] is None}
    assert all(apart[name] == moving[name] for name in same)


def test_box_slows_diffusion_as_hydrodynamics_says():
    # SPC/E water of 343 molecules: 0.40e-5 cm^2/s, and half as much in a box twice as wide
    gain, error = box_correction((0.72, 0.072), 298.15, np.eye(3) * 2.17)
    assert gain == pytest.approx(0.397e-5, rel=0.01) and error == pytest.approx(0.1 * gain)
    half, _ = box_correction((0.72, 0.072), 298.15, np.eye(3) * 4.34)
    assert half == pytest.approx(gain / 2)
    with pytest.raises(Unmeasurable, match="for cubic boxes"):
        box_correction((0.72, 0.07), 298.15, BRICK)
