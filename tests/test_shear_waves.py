"""Shear waves of windows are what analysis finds, and their critic sees what no motion of single beads shows."""

import math

import numpy as np
import pytest
import torch
from systems import FREE_BEADS as BEADS
from systems import FREE_LENGTH as LENGTH
from systems import FREE_MASS as MASS
from systems import TEMPERATURE, free_beads

from openmm_cgadv import config
from openmm_cgadv.analysis.displacement_correlation import displacement_correlation
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.dynamics import GeneralizedLangevin
from openmm_cgadv.methods.adversarial.current_modes import (
    MODE_TYPES,
    MODES,
    transverse_displacements,
)
from openmm_cgadv.methods.adversarial.motion_discriminators import MotionDiscriminators
from openmm_cgadv.methods.adversarial.windows import ReferenceWindows, Windows

CUBE = LENGTH * torch.eye(3, dtype=torch.float64)
MASSES = torch.full([BEADS], MASS, dtype=torch.float64)
KINDS_OF_BEADS = torch.zeros(BEADS, dtype=torch.int64)


def window(x, displacement, box=CUBE):
    """A window of one system that moves by ``displacement`` [T, N, 3]."""
    positions = torch.cat([x[None], x + displacement])[None]
    return Windows.all_beads(positions, box[None], KINDS_OF_BEADS)


@pytest.fixture(scope="module")
def beads():
    return LENGTH * torch.rand(
        [BEADS, 3], generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def test_a_shear_wave_is_seen_in_its_own_component_and_a_sound_wave_is_not():
    """Where beads sit on a lattice, waves are orthogonal."""
    x = torch.cartesian_prod(*[LENGTH / 4 * torch.arange(4, dtype=torch.float64)] * 3)
    k = 2 * math.pi / LENGTH
    for direction, expected in ((1, 0.01 * math.sqrt(BEADS / 2)), (0, 0.0)):
        moved = torch.zeros([1, BEADS, 3], dtype=torch.float64)
        moved[0, :, direction] = 0.01 * (k * x[:, 0]).cos()
        u, kinds = transverse_displacements(window(x, moved), MASSES)
        lengths = u[:, 1].norm(dim=1)
        assert (
            u.shape == (MODES, 2, 3)
            and kinds.bincount().tolist() == [6, 12, 8]
            and (u[:, 0] == 0).all()
        )
        assert lengths.max().item() == pytest.approx(expected, abs=1e-12)
        assert (lengths > 1e-9).sum() == (expected > 0) and (kinds[lengths > 1e-9] == 0).all()


@pytest.mark.parametrize(
    "box", [CUBE, torch.tensor([[2.0, 0, 0], [0.5, 1.8, 0], [-0.4, 0.3, 1.9]], dtype=torch.float64)]
)
def test_waves_do_not_depend_on_images_and_independent_beads_make_two_thirds_of_their_squares(
    beads, box
):
    random = torch.Generator().manual_seed(2)
    moved = torch.randn([400, BEADS, 3], generator=random, dtype=torch.float64)
    u, kinds = transverse_displacements(window(beads, moved, box), MASSES)
    images = torch.randint(-2, 3, [BEADS, 3], generator=random).double() @ box
    torch.testing.assert_close(
        transverse_displacements(window(beads + images, moved, box), MASSES)[0],
        u,
        atol=1e-10,
        rtol=0,
    )
    squares = torch.stack(
        [u[kinds == kind, 1:].square().sum(2).mean() for kind in range(MODE_TYPES)]
    )
    assert squares.tolist() == pytest.approx([2.0] * MODE_TYPES, rel=0.05)


def test_waves_are_those_of_analysis(tmp_path):
    """Mean squares of the longest over those of independent beads, in beads of two masses that share their motion."""
    random = np.random.default_rng(3)
    masses, types = np.array([18.0, 40.0])[np.arange(BEADS) % 2], np.arange(BEADS) % 2
    x = random.uniform(0, LENGTH, [BEADS, 3])
    positions = [x]
    for _ in range(1500):
        wave = np.cos(2 * np.pi * positions[-1][:, [0]] / LENGTH + random.uniform(0, 2 * np.pi)) * [
            [0, 1, 0]
        ]
        step = 0.01 * random.normal(size=x.shape) + 0.01 * random.normal() * wave
        positions.append(positions[-1] + step - masses @ step / masses.sum())
    path = tmp_path / "beads.h5"
    with BeadWriter(path, masses, types, ("A", "B"), TEMPERATURE, 0.02, {}) as writer:
        writer.append(np.array(positions), np.broadcast_to(LENGTH * np.eye(3), [1501, 3, 3]))
        writer.finish()
    trajectory = BeadTrajectory.open(path)
    ends = dict.fromkeys((("A", "A"), ("A", "B"), ("B", "B")), 0.4)
    found = displacement_correlation(trajectory, [ends])
    lag = round(found.lags[0] / 0.02)
    windows = ReferenceWindows(trajectory, [lag])
    weight = torch.from_numpy(masses**2 / (masses**2).sum())
    ours, own = [], []
    for one in windows.evenly_spaced(1500):
        u, kinds = transverse_displacements(one, windows.masses)
        ours.append(u[kinds == 0, 1].square().sum(1).mean() / 2)
        own.append(
            weight
            @ (one.selected_positions[:, 1] - one.selected_positions[:, 0]).square().sum(1)
            / 3
        )
    ratio = (sum(ours) / sum(own)).item()
    assert ratio > 1.5
    assert ratio == pytest.approx(found.mode_ratio()[1, 0], rel=0.1)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return free_beads(
        tmp_path_factory.mktemp("free") / "beads.h5", GeneralizedLangevin(1, 1, 15.0), 400
    )


def test_the_critic_of_waves_sees_motion_that_beads_share(reference):
    """Each bead moves as in the reference, but those in an eighth of the box all alike."""
    random = torch.Generator().manual_seed(4)
    windows = ReferenceWindows(reference, [1, 2, 4, 8])
    discriminators = MotionDiscriminators(windows, config.Discriminator(), random, transverse=True)
    assert set(discriminators.trainers) == {"dynamics", "transverse"}
    for _ in range(30):
        real = windows.sample(2 * BEADS, random, starts=2).positions
        eighth = (real[:, 0] % LENGTH > LENGTH / 2).long() @ torch.tensor([1, 2, 4])
        moved = (real - real[:, :1]).gather(2, eighth[:, None, :, None].expand_as(real))
        fake = Windows.all_beads(real[:, :1] + moved, CUBE.expand(2, 3, 3), KINDS_OF_BEADS)
        gradient, log = discriminators.update(fake, random)
    assert gradient.shape == fake.positions.shape and gradient.isfinite().all()
    assert log["transverse_gap"] > 0.08
    assert abs(log["dynamics_gap"]) < 0.02
    # Such beads should move less far together.
    assert (gradient * moved).sum() > 0
