"""The assessment states deviations and tolerances, and selects the advice that applies."""

import copy
from dataclasses import replace

import pytest

from openmm_cgadv.analysis.tolerances import OBSERVABLES, Tolerances
from openmm_cgadv.methods.adversarial.details import details
from openmm_cgadv.methods.base import ADVICE as KEYS
from openmm_cgadv.report import precision
from openmm_cgadv.report.assessment import (
    Context,
    assess,
    assess_other_run,
    headline,
    unstable,
)
from openmm_cgadv.report.status import GOOD, MISSED, OPEN, status, status_by_lag, worst_lag

ADVICE = {key: f"advice on {key}" for key in KEYS}
CONTEXT = Context(advice=ADVICE, longest_lag_ps=1.92)

LAGS = (0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
REFERENCE = {
    "diffusion_cm2_per_s": 2.40e-5,
    "diffusion_stderr": 0.02e-5,
    "length_ps": 1000.0,
    "msd_nm2": [[lag, 0.015 * lag] for lag in LAGS],
    "msd_stderr": [[lag, 1e-4 * lag] for lag in LAGS],
    "temperature_K": 298.0,
    "temperature_stderr": 0.3,
}
FLOOR = {"rdf_l1": 0.004, "adf_l1": 0.009, "second_adf_l1": 0.003, "vacf_rms": 0.002}
RIGHT = {
    "diffusion_cm2_per_s": 2.42e-5,
    "diffusion_stderr": 0.01e-5,
    "diffusion_fit_ps": [2.0, 20.0],
    "msd_ratio": [[lag, 1.01, 0.01] for lag in LAGS],
    "msd_nm2": [[lag, 0.01515 * lag] for lag in LAGS],
    "msd_stderr": [[lag, 1e-4 * lag] for lag in LAGS],
    "vacf_rms": 0.009,
    "vacf_rms_stderr": 2e-4,
    "rdf_l1": 0.004,
    "rdf_l1_stderr": 4e-4,
    "adf_l1": 0.010,
    "adf_l1_stderr": 7e-4,
    "second_adf_l1": 0.003,
    "second_adf_l1_stderr": 3e-4,
    "temperature_K": 298.5,
    "temperature_stderr": 0.3,
    "timestep_fs": 5.0,
}


def changed(**values):
    return {**copy.deepcopy(RIGHT), **values}


def ratios(off, lags):
    return [[lag, 1 + off if lag in lags else 1.01, 0.01] for lag in LAGS]


def finding(observable, run=RIGHT, reference=REFERENCE, floor=FLOOR, context=CONTEXT):
    return {f.observable: f for f in assess(run, reference, floor, context)}[observable]


def test_a_good_model_is_called_good():
    found = assess(RIGHT, REFERENCE, FLOOR, CONTEXT)
    assert {f.observable: f.status for f in found} == dict.fromkeys(
        (
            "reference",
            "temperature",
            "rdf_l1",
            "adf_l1",
            "second_adf_l1",
            "msd",
            "diffusion",
            "vacf_rms",
        ),
        GOOD,
    )
    assert headline(found) == "The model is good: 6 of 6 observables within tolerance."


def test_the_second_shell_is_judged_where_the_reference_has_one():
    run = changed(second_adf_l1=0.01)
    found = finding("second_adf_l1", run)
    assert (
        found.status == MISSED
        and found.tolerance == 0.006
        and "advice on angular_structure" in found.sentence
    )
    floor = {**FLOOR, "second_adf_l1": None}
    assert "second_adf_l1" not in {f.observable for f in assess(run, REFERENCE, floor, CONTEXT)}


def test_every_run_of_a_model_is_judged():
    found = assess(RIGHT, REFERENCE, FLOOR, CONTEXT)
    other = assess(changed(diffusion_cm2_per_s=2.6e-5), REFERENCE, FLOOR, CONTEXT)
    both = found + assess_other_run("trained, 10 fs", 10.0, other)
    assert (
        headline(both)
        == "The model is not good enough yet: 11 of 12 observables within tolerance at 2 time steps."
    )
    (missed,) = (f for f in both if f.status == MISSED)
    assert (missed.observable, missed.run) == (
        "diffusion",
        "trained, 10 fs",
    ) and missed.sentence.startswith("At 10 fs: D is 2.600")
    burst = unstable("trained, 20 fs", 20.0, "The run exploded at 3 ps.")
    assert burst.sentence == "At 20 fs: The run exploded at 3 ps."
    assert headline([*found, burst]).endswith(
        "6 of 6 observables within tolerance at 2 time steps, and it exploded."
    )


def test_a_run_that_tells_nothing_is_not_called_good():
    found = finding("diffusion", changed(diffusion_stderr=0.3e-5))
    assert found.status == OPEN and "too large to decide" in found.sentence
    unsure = changed(
        msd_stderr=[[lag, 0.1 * 0.015 * lag if lag == 20.0 else 1e-4 * lag] for lag in LAGS]
    )
    found = finding("msd", unsure)
    assert (
        found.status == OPEN
        and "+1.0 % off at 20 ps, within its tolerance of 3 %; the statistical error of this run is too large"
        in found.sentence
    )
    # A lag that surely misses its bar is told before one that is further off by chance.
    found = finding(
        "msd",
        {
            **unsure,
            "msd_ratio": [[lag, {20.0: 1.12, 0.5: 1.05}.get(lag, 1.0), 0.01] for lag in LAGS],
        },
    )
    assert (
        found.status == MISSED
        and "+5.0 % off at 0.5 ps" in found.sentence
        and "beyond its tolerance at 0.5 ps alone" in found.sentence
    )


def test_a_reference_without_velocities_has_the_temperature_that_was_given():
    reference = {**REFERENCE, "temperature_K": None, "temperature_stderr": None}
    hot, told = changed(temperature_K=310.0), replace(CONTEXT, temperature_K=298.15)
    assert finding("temperature", hot, reference, context=told).status == MISSED
    assert finding("temperature", RIGHT, reference, context=told).status == GOOD


def test_beads_of_several_types_do_not_make_up_for_each_other():
    def mixture(figures, factors):
        own = {
            bead: {
                "msd_nm2": figures["msd_nm2"],
                "msd_stderr": figures["msd_stderr"],
                "msd_ratio": [[lag, ratio, 0.01] for lag in LAGS],
            }
            for bead, ratio in factors.items()
        }
        slopes = {
            bead: {"cm2_per_s": 2.4e-5 * ratio, "stderr": 0.01e-5}
            for bead, ratio in factors.items()
        }
        return {**figures, "msd_by_type": own, "diffusion_by_type": slopes}

    reference = mixture(REFERENCE, {"Ar": 1.0, "Kr": 1.0})
    found = assess(mixture(RIGHT, {"Ar": 1.1, "Kr": 0.9}), reference, FLOOR, CONTEXT)
    assert (
        headline(found) == "The model is not good enough yet: 4 of 8 observables within tolerance."
    )
    told = {one.name: one for one in found}
    assert [told[f"diffusion of {bead}"].deviation for bead in ("Ar", "Kr")] == pytest.approx(
        [0.1, -0.1]
    )
    assert told["msd of Kr"].sentence.startswith("Kr: The mean squared displacement is −10.0 % off")
    well = assess(mixture(RIGHT, {"Ar": 1.01, "Kr": 0.99}), reference, FLOOR, CONTEXT)
    assert headline(well) == "The model is good: 8 of 8 observables within tolerance."


def test_beads_that_hardly_move_have_frozen():
    found = finding("msd", changed(msd_ratio=[[lag, min(1.0, 0.02 / lag), 0.01] for lag in LAGS]))
    assert (
        found.status == MISSED
        and "at 20 ps is 0.1 % of all-atom; advice on frozen" in found.sentence
    )


def test_a_bar_is_what_a_good_model_may_deviate_by_or_what_the_reference_leaves_open():
    assert Tolerances().of("diffusion", REFERENCE, FLOOR) == 0.03
    poor = {**REFERENCE, "diffusion_stderr": 0.12e-5}
    assert Tolerances().of("diffusion", poor, FLOOR) == pytest.approx(0.1)
    assert Tolerances().of("rdf_l1", REFERENCE, FLOOR) == 0.01
    assert Tolerances().of("rdf_l1", REFERENCE, {"rdf_l1": 0.02}) == 0.04
    assert Tolerances().of("adf_l1", REFERENCE, FLOOR) == 0.018
    assert Tolerances().of_msd(5.0, REFERENCE) == 0.03
    poor = {**REFERENCE, "msd_stderr": [[lag, 1e-3 * lag] for lag in LAGS]}
    assert Tolerances().of_msd(5.0, poor) == pytest.approx(2 / 15)
    run = changed(diffusion_cm2_per_s=2.6e-5)
    assert finding("diffusion", run).status == MISSED
    assert finding("diffusion", run, {**REFERENCE, "diffusion_stderr": 0.12e-5}).status == GOOD


@pytest.mark.parametrize(
    "run",
    [
        RIGHT,
        changed(
            rdf_l1=0.011,
            rdf_l1_stderr=0.001,
            adf_l1=None,
            vacf_rms=0.04,
            diffusion_cm2_per_s=2.1e-5,
            msd_ratio=ratios(-0.08, (0.5, 1.0)),
        ),
    ],
)
def test_judgement_says_in_words_how_each_figure_stands(run):
    said = {f.observable: f for f in assess(run, REFERENCE, FLOOR, CONTEXT)}
    for figure in OBSERVABLES:
        found = status(figure, run, REFERENCE, FLOOR)
        assert (found.status, found.deviation, found.tolerance) == (
            said[figure].status,
            said[figure].deviation,
            said[figure].tolerance,
        )
    states = {f: status(f, run, REFERENCE, FLOOR).status for f in OBSERVABLES}
    assert states == (
        dict.fromkeys(OBSERVABLES, GOOD)
        if run is RIGHT
        else {
            "rdf_l1": OPEN,
            "adf_l1": OPEN,
            "second_adf_l1": GOOD,
            "vacf_rms": MISSED,
            "diffusion": MISSED,
            "msd": MISSED,
        }
    )


def test_displacements_stand_against_the_bar_of_each_lag_and_to_the_longest():
    # The bars are 3 % to 5 ps, 10 % at 10 ps and 20 % at 20 ps; what is beyond the longest lag is not judged.
    errors = {10.0: 0.05 * 0.15, 20.0: 0.1 * 0.3}
    reference = {**REFERENCE, "msd_stderr": [[lag, errors.get(lag, 1e-6)] for lag in LAGS]}
    run = changed(msd_ratio=[*ratios(0.08, (10.0, 20.0)), [200.0, 3.0, 0.1]])
    at = status_by_lag(run, reference)
    assert list(at) == list(LAGS)
    assert [one.tolerance for one in at.values()] == pytest.approx([0.03] * 6 + [0.1, 0.2])
    found = status("msd", run, reference, FLOOR)
    assert worst_lag(at) == 10.0
    assert (found.status, found.deviation, found.tolerance) == (
        GOOD,
        pytest.approx(0.08),
        pytest.approx(0.1),
    )
    run["msd_ratio"] = ratios(0.08, (5.0, 10.0, 20.0))
    found = status("msd", run, reference, FLOOR)
    assert (found.status, found.deviation, found.tolerance) == (MISSED, pytest.approx(0.08), 0.03)
    assert worst_lag(status_by_lag(run, reference)) == 5.0


def test_a_short_reference_is_told_how_long_it_should_be():
    found = finding("reference", reference={**REFERENCE, "diffusion_stderr": 0.096e-5})
    assert (
        found.status == OPEN
        and "4 % only" in found.sentence
        and "about 4000 ps instead of 1000" in found.sentence
    )
    found = finding(
        "reference",
        reference={
            **REFERENCE,
            "diffusion_cm2_per_s": None,
            "reasons": {"diffusion_cm2_per_s": "it is short"},
        },
    )
    assert found.status == OPEN and "(it is short)" in found.sentence


def test_a_wrong_temperature_blames_the_time_step():
    found = finding("temperature", changed(temperature_K=310.0, timestep_fs=20.0))
    assert found.status == MISSED
    assert (
        "310.0 K, expected 298.0 K" in found.sentence
        and "time step of 20 fs is too long" in found.sentence
    )


def test_a_reference_of_another_temperature_is_not_blamed_on_the_time_step():
    hot = {**REFERENCE, "temperature_K": 313.3}
    found = finding("temperature", reference=hot, context=replace(CONTEXT, temperature_K=298.15))
    assert (
        found.status == MISSED
        and "298.5 K, that of the thermostat" in found.sentence
        and "313.3 K" in found.sentence
    )
    assert "time step" not in found.sentence
    found = finding(
        "temperature", changed(temperature_K=310.0), context=replace(CONTEXT, temperature_K=298.15)
    )
    assert "time step" in found.sentence


@pytest.mark.parametrize(
    "observable, words",
    [
        ("rdf_l1", "advice on pair_structure"),
        ("adf_l1", "advice on angular_structure"),
        ("second_adf_l1", "advice on angular_structure"),
    ],
)
def test_a_deviation_of_the_structure_has_the_advice_of_the_method(observable, words):
    run = changed(**{observable: 0.05})
    found = finding(observable, run)
    assert found.status == MISSED
    assert "5 %, expected at most" in found.sentence and found.sentence.endswith(f"; {words}.")
    without = finding(observable, run, context=Context())
    assert without.status == MISSED and "advice" not in without.sentence


def test_what_the_error_of_the_run_does_not_exclude_is_left_open():
    for run, figure in (
        (changed(rdf_l1=0.011, rdf_l1_stderr=0.001), "rdf_l1"),
        (changed(vacf_rms=0.016, vacf_rms_stderr=0.001), "vacf_rms"),
        (changed(diffusion_cm2_per_s=2.5e-5, diffusion_stderr=0.04e-5), "diffusion"),
        (
            changed(
                msd_ratio=ratios(0.04, (20.0,)), msd_stderr=[[lag, 2e-4 * lag] for lag in LAGS]
            ),
            "msd",
        ),
    ):
        found = finding(figure, run)
        assert found.status == OPEN and "production.length_ps" in found.sentence


@pytest.mark.parametrize(
    "lags, context, words",
    [
        ((0.5, 1.0), CONTEXT, "motion"),
        ((2.0, 5.0, 10.0), CONTEXT, "slow_motion"),
        ((2.0, 5.0, 10.0), replace(CONTEXT, longest_lag_ps=None), "motion"),
        ((0.02,), replace(CONTEXT, timestep_fs=10.0), "fast_motion"),
        ((0.5, 5.0), CONTEXT, "motion"),
    ],
)
def test_the_lags_at_which_displacements_deviate_select_the_advice(lags, context, words):
    found = finding("msd", changed(msd_ratio=ratios(-0.08, lags)), context=context)
    assert found.status == MISSED and found.sentence.endswith(f"; advice on {words}.")
    assert f"−8.0 % off at {lags[0]:g} ps, expected at most 3 %" in found.sentence


def test_a_deviation_of_the_diffusion_coefficient_alone_is_slow_motion():
    found = finding("diffusion", changed(diffusion_cm2_per_s=2.7e-5))
    assert found.status == MISSED
    assert "+12.5 % from all-atom (2.400), expected within 3 %" in found.sentence
    assert found.sentence.endswith("; advice on slow_motion.")
    found = finding(
        "diffusion", changed(diffusion_cm2_per_s=2.7e-5, msd_ratio=ratios(0.1, (0.5, 1.0)))
    )
    assert found.sentence.endswith("; advice on motion.")


def test_a_deviation_of_the_velocity_autocorrelation_function_is_stated():
    found = finding("vacf_rms", changed(vacf_rms=0.04))
    assert found.status == MISSED and "0.0400 (rms), expected at most 0.0150" in found.sentence
    assert found.sentence.endswith("; advice on motion.")


def test_missing_figures_are_open_with_their_reason_and_the_headline_counts():
    run = changed(
        vacf_rms=None,
        temperature_K=None,
        rdf_l1=0.05,
        adf_l1=None,
        msd_ratio=None,
        reasons={"vacf_rms": "frames are rare", "msd_ratio": "it is short"},
    )
    found = {f.observable: f for f in assess(run, REFERENCE, FLOOR, CONTEXT)}
    assert list(found) == [
        "reference",
        "rdf_l1",
        "adf_l1",
        "second_adf_l1",
        "msd",
        "diffusion",
        "vacf_rms",
    ]
    for figure, why in (
        ("vacf_rms", "frames are rare"),
        ("adf_l1", "not measured"),
        ("msd", "it is short"),
    ):
        assert found[figure].status == OPEN and found[figure].deviation is None
        assert found[figure].sentence.endswith(f"not known: {why}.")
    said = finding(
        "diffusion",
        RIGHT,
        {
            **REFERENCE,
            "diffusion_cm2_per_s": None,
            "reasons": {"diffusion_cm2_per_s": "a short reference"},
        },
    )
    assert said.status == OPEN and "a short reference" in said.sentence


def test_the_headline_counts_the_observables_within_tolerance():
    def words(run=RIGHT, reference=REFERENCE):
        return headline(assess(run, reference, FLOOR, CONTEXT))

    assert words(changed(rdf_l1=0.05, adf_l1=None)) == (
        "The model is not good enough yet: 4 of 6 observables within tolerance."
    )
    assert words(changed(temperature_K=310.0)) == (
        "The model is not good enough yet: 6 of 6 observables within tolerance, and its temperature is wrong."
    )
    assert words(changed(adf_l1=None)) == (
        "No observable is known to exceed its tolerance, but some are undetermined: 5 of 6 observables within tolerance."
    )
    assert words(reference={**REFERENCE, "diffusion_stderr": 1e-6}) == (
        "No observable is known to exceed its tolerance, but the reference is too short: 6 of 6 observables within tolerance."
    )


WAVES = {
    "viscosity_mPa_s": 0.75,
    "viscosity_stderr": 0.02,
    "transverse_current": [[0.2, 0.65], [0.4, 0.25]],
    "transverse_current_stderr": [[0.2, 0.01], [0.4, 0.01]],
    "displacement_correlation": {
        "transverse": {"first_shell": [[0.05, 0.9, 0.0], [0.5, 0.2, 0.002], [1.0, 0.2, 0.04]]}
    },
}
COLLECTIVE = ("viscosity", "stress_viscosity", "transverse_current", "displacement_correlation")


@pytest.mark.parametrize(
    "figure, changes, state, said",
    [
        (None, {}, GOOD, ""),
        (
            "viscosity",
            {"viscosity_mPa_s": 0.90},
            MISSED,
            "0.90 ± 0.02 mPa\u202fs, +20.0 % from all-atom (0.75), expected within 10 %; advice on collective_motion",
        ),
        (
            "viscosity",
            {"viscosity_mPa_s": 0.85, "viscosity_stderr": 0.05},
            OPEN,
            "the statistical error of this run is too large to decide",
        ),
        (
            "viscosity",
            {"viscosity_mPa_s": None, "reasons": {"viscosity_mPa_s": "it is short"}},
            OPEN,
            "The viscosity from transverse currents is not known: it is short.",
        ),
        (
            "stress_viscosity",
            {"stress_viscosity_mPa_s": 0.5},
            MISSED,
            "Green–Kubo viscosity is 0.50 ± 0.02",
        ),
        (
            "transverse_current",
            {"transverse_current": [[0.2, 0.60], [0.4, 0.15]]},
            MISSED,
            "differs by 0.100 from all-atom at 0.4 ps, expected",
        ),
        (
            "displacement_correlation",
            {
                "displacement_correlation": {
                    "transverse": {
                        "first_shell": [[0.05, 0.1, 0.0], [0.5, 0.12, 0.0], [1.0, 0.13, 0.0]]
                    }
                }
            },
            MISSED,
            "differs by 0.080 from all-atom at 0.5 ps (transverse, first shell), expected at most 0.050",
        ),
        (
            "displacement_correlation",
            {
                "displacement_correlation": None,
                "reasons": {"displacement_correlation": "it is short"},
            },
            OPEN,
            "it is short",
        ),
    ],
)
def test_with_friction_between_pairs_collective_motion_is_judged(figure, changes, state, said):
    moving = {**WAVES, "stress_viscosity_mPa_s": 0.72, "stress_viscosity_stderr": 0.02}
    found = assess(
        changed(**moving, **{k: v for k, v in changes.items() if k not in moving}) | changes,
        {**REFERENCE, **WAVES},
        FLOOR,
        replace(CONTEXT, collective=True),
    )
    by_name = {f.observable: f for f in found}
    assert set(COLLECTIVE) <= set(by_name)
    assert {name for name in COLLECTIVE if by_name[name].status != GOOD} == (
        {figure} if figure else set()
    )
    if figure is None:
        assert headline(found) == "The model is good: 10 of 10 observables within tolerance."
    else:
        assert by_name[figure].status == state and said in by_name[figure].sentence
    poor = {
        **REFERENCE,
        **WAVES,
        "viscosity_mPa_s": None,
        "reasons": {"viscosity_mPa_s": "it is short"},
    }
    lost = [
        f.sentence
        for f in assess(changed(**moving), poor, FLOOR, replace(CONTEXT, collective=True))
        if f.status == OPEN
    ]
    assert lost == ["The viscosity of all-atom is not known: it is short."] * 2
    # Where momentum is not conserved there is no viscosity.
    damped = changed(**moving, conserves_momentum=False)
    found = assess(damped, {**REFERENCE, **WAVES}, FLOOR, replace(CONTEXT, collective=True))
    assert (
        not {f.observable for f in found} & {"viscosity", "stress_viscosity"} and len(found) == 10
    )
    single = assess(changed(**moving), {**REFERENCE, **WAVES}, FLOOR, CONTEXT)
    assert not {f.observable for f in single} & set(COLLECTIVE)


def test_tolerances_can_be_replaced():
    strict = replace(CONTEXT, tolerances=Tolerances(diffusion=0.005, longest_lag_ps=1.0))
    found = {
        f.observable: f
        for f in assess(RIGHT, {**REFERENCE, "diffusion_stderr": 1e-9}, FLOOR, strict)
    }
    assert (found["diffusion"].status, found["diffusion"].tolerance) == (OPEN, 0.005)
    assert "at every lag to 1 ps" in found["msd"].sentence


def test_confidence_adds_the_errors_of_reference_production_and_training():
    found = precision.diffusion_ratio(RIGHT, REFERENCE, mass=18.0, kT=2.479, friction_stderr=0.5)
    assert found["diffusion_ratio"] == pytest.approx(2.42 / 2.40)
    assert found["from_reference"] == pytest.approx(0.02 / 2.40)
    assert found["from_production"] == pytest.approx(0.01 / 2.42)
    # D = kT / (m (γ + γ')) changes by m D² / kT for each 1/ps.
    gamma = 2.479 / (18.0 * 2.42e-3)
    assert found["from_training"] == pytest.approx(0.5 / gamma)
    parts = [found[name] for name in ("from_reference", "from_production", "from_training")]
    assert found["stderr"] == pytest.approx(2.42 / 2.40 * sum(p**2 for p in parts) ** 0.5)
    assert "1.008 ± " in precision.sentence(found)
    unknown = precision.diffusion_ratio(
        changed(diffusion_cm2_per_s=None), REFERENCE, 18.0, 2.479, None
    )
    assert set(unknown.values()) == {None} and precision.sentence(unknown) is None


def test_details_state_held_out_windows_spread_and_scatter():
    told = details(
        {
            "held_out": {
                "lags_ps": [0.1, 1.0],
                "displacement_ratio": [[1.0, 1.01], [0.99, 1.08]],
                "displacement_ratio_stderr": [[0.01, 0.01], [None, 0.03]],
            },
            "parameter_spread": {
                "friction_HOH": {"value": 24.0, "stderr": 0.25},
                "potential_HOH-HOH": {"stderr": 0.005},
            },
            "validated": [
                {"iteration": k, "validation_diffusion": d, "validation_diffusion_stderr": 0.02e-5}
                for k, d in enumerate((2.3e-5, 2.4e-5, 2.5e-5))
            ],
            "metrics": {
                "validation_diffusion_deviation": -0.012,
                "validation_diffusion_deviation_stderr": 0.02,
                "validation_msd": 0.024,
            },
        }
    )
    assert "0.990 at 0.1 ps, 1.080 ± 0.030 at 1 ps" in told[0]
    assert "the friction of HOH was 24 ± 0.25/ps" in told[1]
    assert "spread of the pair potential of HOH-HOH was 0.005 kT" in told[2]
    assert "scatters by 4.2 %; the statistical error of a validation is 0.83 %" in told[3]
    assert "in its validation: D −1.2 % ± 2 %, largest mean squared displacement +2.4 %" in told[4]
    assert details({}) == ()
