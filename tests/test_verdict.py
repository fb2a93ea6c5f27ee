"""The verdict names what is off, by how much, why, and what to change: rule by rule."""
import copy

import pytest

from openmm_cgadv.analysis import verdict
from openmm_cgadv.analysis.verdict import GOOD, MISSED, OPEN, Settings

LAGS = (0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
REFERENCE = {
    "diffusion_cm2_per_s": 2.40e-5, "diffusion_stderr": 0.02e-5, "length_ps": 1000.0,
    "msd_nm2": [[lag, 0.015 * lag] for lag in LAGS],
    "msd_stderr": [[lag, 1e-4 * lag] for lag in LAGS],
    "temperature_K": 298.0, "temperature_stderr": 0.3,
}
FLOOR = {"rdf_l1": 0.004, "adf_l1": 0.009, "second_adf_l1": 0.003, "vacf_rms": 0.002}
RIGHT = {
    "diffusion_cm2_per_s": 2.42e-5, "diffusion_stderr": 0.01e-5, "diffusion_fit_ps": [2.0, 20.0],
    "msd_ratio": [[lag, 1.01, 0.01] for lag in LAGS],
    "msd_nm2": [[lag, 0.01515 * lag] for lag in LAGS],
    "msd_stderr": [[lag, 1e-4 * lag] for lag in LAGS],
    "vacf_rms": 0.009, "vacf_rms_stderr": 2e-4, "rdf_l1": 0.004, "rdf_l1_stderr": 4e-4,
    "adf_l1": 0.010, "adf_l1_stderr": 7e-4, "second_adf_l1": 0.003, "second_adf_l1_stderr": 3e-4, "temperature_K": 298.5, "temperature_stderr": 0.3,
    "timestep_fs": 5.0,
}  # fmt: skip


def changed(**values):
    return {**copy.deepcopy(RIGHT), **values}


def ratios(off, lags):
    return [[lag, 1 + off if lag in lags else 1.01, 0.01] for lag in LAGS]


def finding(figure, run=RIGHT, reference=REFERENCE, floor=FLOOR, settings=Settings()):
    return {f.figure: f for f in verdict.judgement(run, reference, floor, settings)}[figure]


def test_a_good_model_is_called_good():
    found = verdict.judgement(RIGHT, REFERENCE, FLOOR, Settings())
    assert {f.figure: f.state for f in found} == dict.fromkeys(
        ("reference", "temperature", "rdf_l1", "adf_l1", "second_adf_l1", "msd", "diffusion", "vacf_rms"), GOOD)
    assert verdict.headline(found) == "The model is good: 6 of 6 figures within their bars."


def test_the_second_shell_is_judged_where_the_reference_has_one():
    run = changed(second_adf_l1=0.01)
    found = finding("second_adf_l1", run)
    assert found.state == MISSED and found.bar == 0.006 and "more potential.radial_functions" in found.sentence
    floor = {**FLOOR, "second_adf_l1": None}
    assert "second_adf_l1" not in {f.figure for f in verdict.judgement(run, REFERENCE, floor, Settings())}


def test_every_run_of_a_model_is_judged():
    found = verdict.judgement(RIGHT, REFERENCE, FLOOR, Settings())
    other = verdict.judgement(changed(diffusion_cm2_per_s=2.6e-5), REFERENCE, FLOOR, Settings())
    both = found + verdict.judgement_of_other("trained, 10 fs", 10.0, other)
    assert verdict.headline(both) == "The model is not good enough yet: 11 of 12 figures within their bars at 2 time steps."
    (missed,) = (f for f in both if f.state == MISSED)
    assert (missed.figure, missed.run) == ("diffusion", "trained, 10 fs") and missed.sentence.startswith("At 10 fs: D is 2.600")
    burst = verdict.unstable("trained, 20 fs", 20.0, "The run exploded at 3 ps.")
    assert burst.sentence == "At 20 fs: The run exploded at 3 ps."
    assert verdict.headline([*found, burst]).endswith("6 of 6 figures within their bars at 2 time steps, and it exploded.")


def test_a_run_that_tells_nothing_is_not_called_good():
    found = finding("diffusion", changed(diffusion_stderr=0.3e-5))
    assert found.state == OPEN and "too large to tell" in found.sentence
    unsure = changed(msd_stderr=[[lag, 0.1 * 0.015 * lag if lag == 20.0 else 1e-4 * lag] for lag in LAGS])
    found = finding("msd", unsure)
    assert found.state == OPEN and "+1.0 % off at 20 ps, within its bar of 3 %; the error of this run is too large" in found.sentence
    # A lag that surely misses its bar is told before one that is further off by chance.
    found = finding("msd", {**unsure, "msd_ratio": [[lag, {20.0: 1.12, 0.5: 1.05}.get(lag, 1.0), 0.01] for lag in LAGS]})
    assert found.state == MISSED and "+5.0 % off at 0.5 ps" in found.sentence and "beyond its bar at 0.5 ps alone" in found.sentence


def test_a_reference_without_velocities_has_the_temperature_that_was_given():
    reference = {**REFERENCE, "temperature_K": None, "temperature_stderr": None}
    hot, told = changed(temperature_K=310.0), Settings(temperature_K=298.15)
    assert finding("temperature", hot, reference, settings=told).state == MISSED
    assert finding("temperature", RIGHT, reference, settings=told).state == GOOD


def test_beads_of_several_types_do_not_make_up_for_each_other():
    def mixture(figures, factors):
        own = {bead: {"msd_nm2": figures["msd_nm2"], "msd_stderr": figures["msd_stderr"],
                      "msd_ratio": [[lag, ratio, 0.01] for lag in LAGS]} for bead, ratio in factors.items()}
        slopes = {bead: {"cm2_per_s": 2.4e-5 * ratio, "stderr": 0.01e-5} for bead, ratio in factors.items()}
        return {**figures, "msd_by_type": own, "diffusion_by_type": slopes}

    reference = mixture(REFERENCE, {"Ar": 1.0, "Kr": 1.0})
    found = verdict.judgement(mixture(RIGHT, {"Ar": 1.1, "Kr": 0.9}), reference, FLOOR, Settings())
    assert verdict.headline(found) == "The model is not good enough yet: 4 of 8 figures within their bars."
    told = {one.name: one for one in found}
    assert [told[f"diffusion of {bead}"].found for bead in ("Ar", "Kr")] == pytest.approx([0.1, -0.1])
    assert told["msd of Kr"].sentence.startswith("Kr: The mean squared displacement is −10.0 % off")
    well = verdict.judgement(mixture(RIGHT, {"Ar": 1.01, "Kr": 0.99}), reference, FLOOR, Settings())
    assert verdict.headline(well) == "The model is good: 8 of 8 figures within their bars."


def test_beads_that_hardly_move_have_frozen():
    found = finding("msd", changed(msd_ratio=[[lag, min(1.0, 0.02 / lag), 0.01] for lag in LAGS]))
    assert found.state == MISSED and "at 20 ps is 0.1 % of all-atom: the model froze" in found.sentence


def test_a_bar_is_what_a_good_model_may_deviate_by_or_what_the_reference_leaves_open():
    assert verdict.bar("diffusion", REFERENCE, FLOOR) == 0.03
    poor = {**REFERENCE, "diffusion_stderr": 0.12e-5}
    assert verdict.bar("diffusion", poor, FLOOR) == pytest.approx(0.1)
    assert verdict.bar("rdf_l1", REFERENCE, FLOOR) == 0.01
    assert verdict.bar("rdf_l1", REFERENCE, {"rdf_l1": 0.02}) == 0.04
    assert verdict.bar("adf_l1", REFERENCE, FLOOR) == 0.018
    assert verdict.msd_bar(5.0, REFERENCE) == 0.03
    poor = {**REFERENCE, "msd_stderr": [[lag, 1e-3 * lag] for lag in LAGS]}
    assert verdict.msd_bar(5.0, poor) == pytest.approx(2 / 15)
    run = changed(diffusion_cm2_per_s=2.6e-5)
    assert finding("diffusion", run).state == MISSED
    assert finding("diffusion", run, {**REFERENCE, "diffusion_stderr": 0.12e-5}).state == GOOD


@pytest.mark.parametrize("run", [
    RIGHT, changed(rdf_l1=0.011, rdf_l1_stderr=0.001, adf_l1=None, vacf_rms=0.04, diffusion_cm2_per_s=2.1e-5,
                   msd_ratio=ratios(-0.08, (0.5, 1.0))),
])
def test_judgement_says_in_words_how_each_figure_stands(run):
    said = {f.figure: f for f in verdict.judgement(run, REFERENCE, FLOOR, Settings())}
    for figure in verdict.BARS:
        found = verdict.standing(figure, run, REFERENCE, FLOOR)
        assert (found.state, found.found, found.bar) == (
            said[figure].state, said[figure].found, said[figure].bar)
    states = {f: verdict.standing(f, run, REFERENCE, FLOOR).state for f in verdict.BARS}
    assert states == (dict.fromkeys(verdict.BARS, GOOD) if run is RIGHT else {
        "rdf_l1": OPEN, "adf_l1": OPEN, "second_adf_l1": GOOD, "vacf_rms": MISSED, "diffusion": MISSED, "msd": MISSED})


def test_displacements_stand_against_the_bar_of_each_lag_and_to_the_longest():
    # The bars are 3 % to 5 ps, 10 % at 10 ps and 20 % at 20 ps; what is beyond the longest lag is not judged.
    errors = {10.0: 0.05 * 0.15, 20.0: 0.1 * 0.3}
    reference = {**REFERENCE, "msd_stderr": [[lag, errors.get(lag, 1e-6)] for lag in LAGS]}
    run = changed(msd_ratio=[*ratios(0.08, (10.0, 20.0)), [200.0, 3.0, 0.1]])
    at = verdict.at_lags(run, reference)
    assert list(at) == list(LAGS)
    assert [one.bar for one in at.values()] == pytest.approx([0.03] * 6 + [0.1, 0.2])
    found = verdict.standing("msd", run, reference, FLOOR)
    assert verdict.worst_lag(at) == 10.0
    assert (found.state, found.found, found.bar) == (GOOD, pytest.approx(0.08), pytest.approx(0.1))
    run["msd_ratio"] = ratios(0.08, (5.0, 10.0, 20.0))
    found = verdict.standing("msd", run, reference, FLOOR)
    assert (found.state, found.found, found.bar) == (MISSED, pytest.approx(0.08), 0.03)
    assert verdict.worst_lag(verdict.at_lags(run, reference)) == 5.0


def test_a_short_reference_is_told_how_long_it_should_be():
    found = finding("reference", reference={**REFERENCE, "diffusion_stderr": 0.096e-5})
    assert found.state == OPEN and "4 % only" in found.sentence and "about 4000 ps instead of 1000" in found.sentence
    found = finding("reference", reference={**REFERENCE, "diffusion_cm2_per_s": None,
                                            "reasons": {"diffusion_cm2_per_s": "it is short"}})
    assert found.state == OPEN and "(it is short)" in found.sentence


def test_a_wrong_temperature_blames_the_time_step():
    found = finding("temperature", changed(temperature_K=310.0, timestep_fs=20.0))
    assert found.state == MISSED
    assert "310.0 K, expected 298.0 K" in found.sentence and "time step of 20 fs is too long" in found.sentence


def test_a_reference_of_another_temperature_is_not_blamed_on_the_time_step():
    hot = {**REFERENCE, "temperature_K": 313.3}
    found = finding("temperature", reference=hot, settings=Settings(temperature_K=298.15))
    assert found.state == MISSED and "298.5 K, as runs were told" in found.sentence and "313.3 K" in found.sentence
    assert "time step" not in found.sentence
    found = finding("temperature", changed(temperature_K=310.0), settings=Settings(temperature_K=298.15))
    assert "time step" in found.sentence


@pytest.mark.parametrize("figure, settings, words", [
    ("rdf_l1", Settings(), "potential.pair_functions"),
    ("rdf_l1", Settings(potential="adversarial"), "`training.potential: relative_entropy`"),
    ("rdf_l1", Settings(settled=False), "raise training.iterations"),
    ("adf_l1", Settings(three_body=False), "`potential.three_body: true`"),
    ("adf_l1", Settings(), "potential.l_max"),
])
def test_a_wrong_structure_names_its_cause(figure, settings, words):
    found = finding(figure, changed(**{figure: 0.05}), settings=settings)
    assert found.state == MISSED and words in found.sentence and "5 %, expected at most" in found.sentence


def test_what_the_error_of_the_run_does_not_exclude_is_left_open():
    for run, figure in ((changed(rdf_l1=0.011, rdf_l1_stderr=0.001), "rdf_l1"),
                        (changed(vacf_rms=0.016, vacf_rms_stderr=0.001), "vacf_rms"),
                        (changed(diffusion_cm2_per_s=2.5e-5, diffusion_stderr=0.04e-5), "diffusion"),
                        (changed(msd_ratio=ratios(0.04, (20.0,)),
                                 msd_stderr=[[lag, 2e-4 * lag] for lag in LAGS]), "msd")):
        found = finding(figure, run)
        assert found.state == OPEN and "production.length_ps" in found.sentence


@pytest.mark.parametrize("lags, settings, words", [
    ((0.5, 1.0), Settings(equation="langevin"), "`dynamics.equation: generalized_langevin`"),
    ((0.5, 1.0), Settings(auxiliary_variables=0), "friction without memory"),
    ((2.0, 5.0, 10.0), Settings(), "longer training.window_ps"),
    ((0.02,), Settings(timestep_fs=10.0), "shorter dynamics.timestep_fs"),
    ((0.1, 0.5), Settings(auxiliary_variables=1), "memory of 1 auxiliary variable is too simple"),
    ((0.5, 5.0), Settings(settled=False), "raise training.iterations"),
    ((0.5, 1.0), Settings(), "training.seed"),
])
def test_the_lags_at_which_displacements_are_off_tell_the_cause(lags, settings, words):
    found = finding("msd", changed(msd_ratio=ratios(-0.08, lags)), settings=settings)
    assert found.state == MISSED and words in found.sentence
    assert f"−8.0 % off at {lags[0]:g} ps, expected at most 3 %" in found.sentence


def test_a_wrong_diffusion_alone_is_memory_beyond_the_window():
    found = finding("diffusion", changed(diffusion_cm2_per_s=2.7e-5))
    assert found.state == MISSED
    assert "+12.5 % from all-atom (2.400), expected within 3 %" in found.sentence
    assert "memory slower than that escapes it" in found.sentence
    found = finding("diffusion", changed(diffusion_cm2_per_s=2.7e-5, msd_ratio=ratios(0.1, (0.5, 1.0))))
    assert "training.seed" in found.sentence


def test_a_wrong_velocity_correlation_of_memoryless_friction_asks_for_memory():
    found = finding("vacf_rms", changed(vacf_rms=0.04), settings=Settings(equation="langevin"))
    assert found.state == MISSED and "0.0400 (rms), expected at most 0.0150" in found.sentence
    assert "generalized_langevin" in found.sentence


def test_missing_figures_are_open_with_their_reason_and_the_headline_counts():
    run = changed(vacf_rms=None, temperature_K=None, rdf_l1=0.05, adf_l1=None, msd_ratio=None,
                  reasons={"vacf_rms": "frames are rare", "msd_ratio": "it is short"})
    found = {f.figure: f for f in verdict.judgement(run, REFERENCE, FLOOR, Settings())}
    assert list(found) == ["reference", "rdf_l1", "adf_l1", "second_adf_l1", "msd", "diffusion", "vacf_rms"]
    for figure, why in (("vacf_rms", "frames are rare"), ("adf_l1", "not measured"), ("msd", "it is short")):
        assert found[figure].state == OPEN and found[figure].found is None
        assert found[figure].sentence.endswith(f"not known: {why}.")
    said = finding("diffusion", RIGHT, {**REFERENCE, "diffusion_cm2_per_s": None,
                                        "reasons": {"diffusion_cm2_per_s": "a short reference"}})
    assert said.state == OPEN and "a short reference" in said.sentence


def test_the_headline_counts_the_figures_within_their_bars():
    def headline(run=RIGHT, reference=REFERENCE):
        return verdict.headline(verdict.judgement(run, reference, FLOOR, Settings()))

    assert headline(changed(rdf_l1=0.05, adf_l1=None)) == (
        "The model is not good enough yet: 4 of 6 figures within their bars.")
    assert headline(changed(temperature_K=310.0)) == (
        "The model is not good enough yet: 6 of 6 figures within their bars, and its temperature is wrong.")
    assert headline(changed(adf_l1=None)) == (
        "No figure is known to miss its bar, but not all of them can be told: 5 of 6 figures within their bars.")
    assert headline(reference={**REFERENCE, "diffusion_stderr": 1e-6}) == (
        "No figure is known to miss its bar, as far as this reference tells: 6 of 6 figures within their bars.")


WAVES = {
    "viscosity_mPa_s": 0.75, "viscosity_stderr": 0.02,
    "transverse_current": [[0.2, 0.65], [0.4, 0.25]], "transverse_current_stderr": [[0.2, 0.01], [0.4, 0.01]],
    "displacement_correlation": {"transverse": {"first_shell": [[0.05, 0.9, 0.0], [0.5, 0.2, 0.002], [1.0, 0.2, 0.04]]}},
}
COLLECTIVE = ("viscosity", "stress_viscosity", "transverse_current", "shared")


@pytest.mark.parametrize("figure, changes, state, said", [
    (None, {}, GOOD, ""),
    ("viscosity", {"viscosity_mPa_s": 0.90}, MISSED, "0.90 ± 0.02 mPa\u202fs, +20.0 % from all-atom (0.75), expected within 10 %: the range"),
    ("viscosity", {"viscosity_mPa_s": 0.85, "viscosity_stderr": 0.05}, OPEN, "the error of this run is too large to tell"),
    ("viscosity", {"viscosity_mPa_s": None, "reasons": {"viscosity_mPa_s": "it is short"}}, OPEN,
     "The viscosity by shear waves is not known: it is short."),
    ("stress_viscosity", {"stress_viscosity_mPa_s": 0.5}, MISSED, "by the stress is 0.50 ± 0.02"),
    ("transverse_current", {"transverse_current": [[0.2, 0.60], [0.4, 0.15]]}, MISSED, "differs by 0.100 from all-atom at 0.4 ps, expected"),
    ("shared", {"displacement_correlation": {"transverse": {"first_shell": [[0.05, 0.1, 0.0], [0.5, 0.12, 0.0], [1.0, 0.13, 0.0]]}}},
     MISSED, "differs by 0.080 from all-atom at 0.5 ps (transverse, first shell), expected at most 0.050"),
    ("shared", {"displacement_correlation": None, "reasons": {"displacement_correlation": "it is short"}}, OPEN, "it is short"),
])  # fmt: skip
def test_with_friction_between_pairs_collective_motion_is_judged(figure, changes, state, said):
    moving = {**WAVES, "stress_viscosity_mPa_s": 0.72, "stress_viscosity_stderr": 0.02}
    found = verdict.judgement(changed(**moving, **{k: v for k, v in changes.items() if k not in moving}) | changes,
                              {**REFERENCE, **WAVES}, FLOOR, Settings(equation="pair"))
    by_name = {f.figure: f for f in found}
    assert set(COLLECTIVE) <= set(by_name)
    assert {name for name in COLLECTIVE if by_name[name].state != GOOD} == ({figure} if figure else set())
    if figure is None:
        assert verdict.headline(found) == "The model is good: 10 of 10 figures within their bars."
    else:
        assert by_name[figure].state == state and said in by_name[figure].sentence
    poor = {**REFERENCE, **WAVES, "viscosity_mPa_s": None, "reasons": {"viscosity_mPa_s": "it is short"}}
    lost = [f.sentence for f in verdict.judgement(changed(**moving), poor, FLOOR, Settings(equation="pair")) if f.state == OPEN]
    assert lost == ["The viscosity of all-atom is not known: it is short."] * 2
    # Where beads have friction of their own there is no viscosity, and that is what to change.
    given = Settings(equation="pair", self_friction=2.0, settled=False)
    found = verdict.judgement(changed(**moving, diffusion_cm2_per_s=1.5e-5), {**REFERENCE, **WAVES}, FLOOR, given)
    assert not {f.figure for f in found} & {"viscosity", "stress_viscosity"} and len(found) == 10
    assert "friction of 2/ps on each bead is given" in {f.figure: f for f in found}["diffusion"].sentence
    single = verdict.judgement(changed(**moving), {**REFERENCE, **WAVES}, FLOOR, Settings())
    assert not {f.figure for f in single} & set(COLLECTIVE)


def test_confidence_adds_the_errors_of_reference_production_and_training():
    found = verdict.confidence(RIGHT, REFERENCE, mass=18.0, kT=2.479, friction_stderr=0.5)
    assert found["diffusion_ratio"] == pytest.approx(2.42 / 2.40)
    assert found["from_reference"] == pytest.approx(0.02 / 2.40)
    assert found["from_production"] == pytest.approx(0.01 / 2.42)
    # D = kT / (m (γ + γ')) changes by m D² / kT for each 1/ps.
    gamma = 2.479 / (18.0 * 2.42e-3)
    assert found["from_training"] == pytest.approx(0.5 / gamma)
    parts = [found[name] for name in ("from_reference", "from_production", "from_training")]
    assert found["stderr"] == pytest.approx(2.42 / 2.40 * sum(p**2 for p in parts) ** 0.5)
    assert "1.008 ± " in verdict.confidence_sentence(found)
    unknown = verdict.confidence(changed(diffusion_cm2_per_s=None), REFERENCE, 18.0, 2.479, None)
    assert set(unknown.values()) == {None} and verdict.confidence_sentence(unknown) is None


def test_steadiness_tells_held_out_windows_wandering_and_scatter():
    told = verdict.steadiness({
        "held_out": {"lags_ps": [0.1, 1.0], "displacement_ratio": [[1.0, 1.01], [0.99, 1.08]],
                     "displacement_ratio_stderr": [[0.01, 0.01], [None, 0.03]]},
        "wander": {"friction_HOH": {"value": 24.0, "stderr": 0.25}, "potential_HOH-HOH": {"stderr": 0.005}},
        "validated": [{"iteration": k, "validation_diffusion": d, "validation_diffusion_stderr": 0.02e-5}
                      for k, d in enumerate((2.3e-5, 2.4e-5, 2.5e-5))],
        "figures": {"validation_diffusion_deviation": -0.012, "validation_diffusion_deviation_stderr": 0.02,
                    "validation_msd": 0.024},
    })  # fmt: skip
    assert "0.990 at 0.1 ps, 1.080 ± 0.030 at 1 ps" in told[0]
    assert "critics held the friction of HOH at 24 ± 0.25/ps" in told[1]
    assert "pair potential of HOH-HOH wandered by 0.005 kT" in told[2]
    assert "scatters by 4.2 %, of which their own runs explain 0.83 %" in told[3]
    assert "exported, from all-atom: D −1.2 % ± 2 %, the worst mean squared displacement +2.4 %" in told[4]
    assert verdict.steadiness({}) == []
