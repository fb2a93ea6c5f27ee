"""The cost of accuracy is the time from which on all validations are within tolerance."""

import numpy as np
import pytest

from openmm_cgadv.analysis.tolerances import TOLERANCES
from openmm_cgadv.report import cost

REFERENCE = {"diffusion_cm2_per_s": 2.4e-5, "diffusion_stderr": 0.012e-5}


def log(**figures):
    iterations = np.array([50.0, 100.0, 150.0, 200.0])
    every = np.arange(1.0, 201.0)
    out = {"seconds": (every, 0.5 * every)}
    for name, values in figures.items():
        out[f"validation_{name}"] = (iterations, np.array(values))
    return out


def test_a_tolerance_is_met_once_no_later_validation_exceeds_it():
    found = cost.validations(
        log(diffusion_deviation=[0.3, 0.02, 0.1, -0.01], rdf_l1=[0.02, 0.009, 0.005, 0.005]),
        REFERENCE,
        {},
    )
    assert {one.observable: one.met_after for one in found} == {"diffusion": 100.0, "rdf_l1": 50.0}
    told = cost.summary(found)
    assert told["met_after_seconds"] == 100.0
    assert told["observables"]["diffusion"]["deviation"][3] == pytest.approx([100.0, 0.01, 0.0])
    assert "after 100 s of training" in cost.sentence(found, {"diffusion": "D", "rdf_l1": "g(r)"})
    assert "The last was: D" in cost.sentence(found, {"diffusion": "D", "rdf_l1": "g(r)"})


def test_a_tolerance_that_the_last_validation_exceeds_is_not_met():
    found = cost.validations(log(msd=[0.01, 0.01, 0.01, -0.2]), REFERENCE, {})
    assert found[0].met_after is None and cost.summary(found)["met_after_seconds"] is None
    assert "beyond their tolerance: displacements" in cost.sentence(found, {"msd": "displacements"})


def test_a_validation_exceeds_a_tolerance_only_by_more_than_its_error():
    curves = log(msd=[0.2, 0.05, 0.05, 0.05])
    assert cost.validations(curves, REFERENCE, {})[0].met_after is None
    curves["validation_msd_stderr"] = (curves["validation_msd"][0], np.full(4, 0.02))
    assert cost.validations(curves, REFERENCE, {})[0].met_after == 50.0


def test_a_log_without_validation_has_no_cost():
    assert cost.validations(log(), REFERENCE, {}) == []
    assert cost.summary([]) == {"met_after_seconds": None, "observables": {}}


def test_the_tolerance_of_a_short_run_includes_its_statistical_error():
    """Of a reference of 4000 ps whose halves differ by 0.01, runs of 40 ps are off by 0.05 without any error of the model."""
    curves, reference, floor = (
        log(rdf_l1=[0.2, 0.045, 0.045, 0.045]),
        {**REFERENCE, "length_ps": 4000.0},
        {"rdf_l1": 0.01},
    )
    assert cost.validations(curves, reference, floor)[0].met_after is None
    curves["validation_length"] = (curves["validation_rdf_l1"][0], np.full(4, 40.0))
    (found,) = cost.validations(curves, reference, floor)
    assert found.met_after == 50.0 and found.tolerance == pytest.approx(0.05, rel=0.01)


def test_chance_is_what_independent_runs_show():
    """Histograms of independent counts: two halves of a long run, and a short run beside the whole."""
    rng = np.random.default_rng(1)
    p = np.full(50, 0.02)

    def off(count, other):
        a, b = (rng.multinomial(n, p) / n for n in (count, other))
        return np.abs(a - b).sum()

    halves = np.mean([off(50_000, 50_000) for _ in range(200)])
    short = np.mean([off(2_000, 100_000) for _ in range(200)])
    assert TOLERANCES.of_short_run(
        "rdf_l1", {"length_ps": 100.0}, {"rdf_l1": halves}, 2.0
    ) == pytest.approx(short, rel=0.05)
