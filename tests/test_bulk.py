"""A liquid of any size has density, composition and structure of the one it is cut from."""

from dataclasses import replace

import numpy as np
import pytest
from models import make_model
from openmm import unit
from scipy.spatial import cKDTree

from openmm_cgadv import bulk_model
from openmm_cgadv.errors import InputError


def density(model):
    return len(model.types) / np.linalg.det(model.box)


def neighbours(model, cutoff=0.5):
    """Sorted distances below a cutoff of each bead, by the images around the cell."""
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3) @ model.box
    images = (model.positions + shifts[:, None]).reshape(-1, 3)
    pairs = cKDTree(model.positions).sparse_distance_matrix(cKDTree(images), cutoff)
    return np.sort(np.array([d for d in pairs.values() if d > 1e-9]))


@pytest.mark.parametrize("triclinic", [False, True])
def test_multiples_are_the_repeated_configuration(triclinic):
    model = make_model(n_types=2, n=125, triclinic=triclinic)
    # Where beads lie on a face of the box or outside of it, none is lost or doubled.
    moved = model.positions - model.positions[0] + [3.0, -7.0, 0.0] @ model.box
    for start in (model, replace(model, positions=moved)):
        large = bulk_model(start, molecules=8 * 125)
        np.testing.assert_allclose(large.box, 2 * model.box)
        before = neighbours(start)
        np.testing.assert_allclose(neighbours(large), np.repeat(before, 8), atol=1e-9)
        assert (np.bincount(large.types) == 8 * np.bincount(model.types)).all()


@pytest.mark.parametrize("count", [90, 126, 500, 1001])
def test_any_number_keeps_density_and_composition(count):
    model = make_model(n_types=3, n=125)
    other = bulk_model(model, molecules=count)
    assert len(other.types) == count
    assert density(other) == pytest.approx(density(model), rel=1e-9)
    shares = np.bincount(model.types) / 125 * count
    assert np.abs(np.bincount(other.types) - shares).max() < 1
    assert (np.diff(other.types) >= 0).all()
    fractions = other.positions @ np.linalg.inv(other.box)
    assert (fractions > -1e-9).all() and (fractions < 1 + 1e-9).all()
    # Filled everywhere: no octant is empty or crowded.
    octants = np.bincount((fractions > 0.5) @ [1, 2, 4], minlength=8)
    assert octants.min() > 0.5 * count / 8 and octants.max() < 1.6 * count / 8


@pytest.mark.parametrize("box", [2.5, (2.0, 1.7, 3.3), 25.0 * unit.angstrom])
def test_box_is_the_given_one_and_filled_at_the_density(box):
    model = make_model(n_types=2, n=125, triclinic=True)
    other = bulk_model(model, box=box)
    edges = box.value_in_unit(unit.nanometer) if hasattr(box, "unit") else box
    np.testing.assert_allclose(other.box, np.diag(np.ones(3) * edges))
    assert abs(len(other.types) - density(model) * np.linalg.det(other.box)) <= 0.5
    # A cut box has neighbours as the whole one has, up to those across its faces.
    assert len(neighbours(other)) / len(other.types) == pytest.approx(
        len(neighbours(model)) / len(model.types), rel=0.1
    )


def test_the_model_is_otherwise_unchanged():
    model = make_model(n_types=2)
    other = bulk_model(model, molecules=100)
    assert other.spec == model.spec and other.timestep == model.timestep
    assert np.array_equal(other.friction.drift, model.friction.drift)
    for name in ("theta", "masses"):
        assert np.array_equal(getattr(other, name), getattr(model, name))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "found neither of molecules and box"),
        ({"molecules": 100, "box": 3.0}, "found both of molecules and box"),
        ({"molecules": 0}, "molecules: found 0, expected a whole number above 0"),
        ({"molecules": 10.5}, "molecules: found 10.5, expected a whole number"),
        ({"molecules": 20}, "molecules: found a box of 0.846.* for 20 beads, expected at leas"),
        ({"box": 1.0}, "box: found a box of 1 nm for 33 beads, expected at least 1.1 nm, twice"),
        ({"box": (3.0, 3.0)}, "box: found .* expected one length or three, in nm"),
        ({"box": -3.0}, "box: found -3.0, expected one length or three"),
    ],
)
def test_wrong_sizes_are_rejected_in_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        bulk_model(make_model(), **arguments)


def test_a_length_in_another_unit_is_not_taken_for_a_huge_box():
    with pytest.raises(
        InputError, match="box: found 530 nm, which holds .* beads, expected at most"
    ):
        bulk_model(make_model(), box=530)
    with pytest.raises(InputError, match="molecules: found 1000000000000, which need about .* GB"):
        bulk_model(make_model(), molecules=10**12)
