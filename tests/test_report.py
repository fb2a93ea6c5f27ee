"""The report shows what was measured, says why something is missing, and opens offline."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from openmm_cgadv.analysis import measurement, metrics
from openmm_cgadv.analysis.tolerances import OBSERVABLES, TOLERANCES
from openmm_cgadv.data.trajectory import BeadTrajectory, BeadWriter
from openmm_cgadv.report import plots
from openmm_cgadv.report.assessment import Context, assess
from openmm_cgadv.report.inputs import (
    Memory,
    PairFrictionCurve,
    PairPotential,
    ReportInput,
    Run,
    Timings,
    read_training_log,
)
from openmm_cgadv.report.page import write_report
from openmm_cgadv.report.status import GOOD, MISSED, OPEN, status

SECTIONS = [
    "Assessment",
    "Observables",
    "Structure",
    "Motion",
    "The model",
    "Training",
    "Speed and time",
    "Provenance",
]


def rattling(path, seed, frames=1000, types=None, width=0.03):
    """Beads on a lattice that diffuse by hops of whole box vectors."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3) * 0.5
    hops = rng.choice([-2.0, 0.0, 2.0], p=[0.005, 0.99, 0.005], size=(frames, 64, 3))
    x = grid + width * rng.normal(size=(frames, 64, 3)) + np.cumsum(hops, axis=0)
    types = np.zeros(64, int) if types is None else types
    writer = BeadWriter(
        path,
        np.full(64, 18.0),
        types,
        ("HOH", "AR")[: max(types) + 1],
        300.0,
        0.02,
        velocities=True,
    )
    writer.append(x, np.eye(3) * 2, velocities=0.37 * rng.normal(size=x.shape))
    writer.finish()
    return path


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    where = tmp_path_factory.mktemp("beads")
    with BeadTrajectory.open(rattling(where / "aa.h5", 0)) as beads:
        reference = measurement.measure(beads)
    runs = {}
    for label, seed, width in (("initial", 1, 0.05), ("trained", 2, 0.03), ("other", 3, 0.031)):
        with BeadTrajectory.open(rattling(where / f"{label}.h5", seed, width=width)) as beads:
            runs[label] = metrics.metrics(
                measurement.measure(beads, reference),
                reference,
                friction_per_ps=20.0,
                timestep_fs=5.0,
            )
    return reference, metrics.metrics(reference, timestep_fs=2.0), runs


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    lines = [
        "iteration,seconds,friction,dynamics_critic_loss,validation_rdf_l1,"
        "validation_diffusion_deviation,validation_diffusion_deviation_stderr"
    ]
    lines += [
        f"{k},{k / 3},{20 - k / 10},{1.4 - k / 1000},"
        + (f"{1 / k:.3f},0.02,0.01" if k % 10 == 0 else ",,")
        for k in range(1, 41)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def full(measured, log):
    reference, figures, runs = measured
    r, t = np.linspace(0.2, 0.6, 80), np.linspace(0, 2, 50)
    u = 4 * ((0.28 / r) ** 12 - (0.28 / r) ** 6)
    floor = metrics.noise_floor(reference)
    return ReportInput(
        title="Water <b>& beads</b>",
        reference=Run("All-atom", figures),
        initial=Run("Force matching", runs["initial"]),
        trained=Run("Trained", runs["trained"]),
        noise_floor=floor,
        comparison=[Run("Langevin", runs["other"])],
        potentials=[PairPotential(("HOH", "HOH"), r, u, 0.9 * u, 0.25)],
        pair_friction=[PairFrictionCurve(("HOH", "HOH"), r, np.array([u, u]), np.array([r, u]))],
        memory=[Memory("trained", t, 20 * np.exp(-t / 0.5), 9.0, 19.0)],
        training_log=log,
        timings=Timings({"reference": 600.0, "train": 4000.0}, 70.0, 1400.0, "two cores"),
        findings=assess(runs["trained"], figures, floor, Context()),
        precision={
            "diffusion_ratio": 1.2,
            "stderr": 0.05,
            "from_reference": 0.04,
            "from_production": 0.03,
            "from_training": None,
        },
        outcome={"sentence": "it had settled", "warnings": ["a chain froze"]},
        provenance={"seed": 3, "versions": {"openmm": "8.6.1"}},
    )


class Page(HTMLParser):
    """Checks that tags are closed in order, collects headings, sources, links and text."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.links, self.text, self.headings = [], [], [], "", []
        self.anchors = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes[k] for k in ("src", "srcset", "data") if k in attributes]
        self.links += [attributes["href"]] if "href" in attributes else []
        self.anchors |= {attributes["id"]} if "id" in attributes else set()
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


def read(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_shows_every_section_and_opens_offline(full, tmp_path):
    text, page = read(write_report(tmp_path / "report", full))
    assert page.headings == SECTIONS
    assert all(link.startswith("#") and link[1:] in page.anchors for link in page.links)
    assert "url(" not in text and "<script" not in text and "@import" not in text
    prefix = "data:image/svg+xml;base64,"
    assert len(page.sources) == 12 and all(s.startswith(prefix) for s in page.sources)
    for source in page.sources:
        svg = base64.b64decode(source[len(prefix) :]).decode()
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert not re.search(r'(href|src)="http', svg)
    for words in (
        "Water <b>& beads</b>",
        "Force matching",
        "Langevin",
        "Noise floor",
        *(finding.sentence for finding in full.findings),
        "1.200 ± 0.050",
        "it had settled",
        "a chain froze",
        "1,400 ns/day",
        "20 ×",
        "1 h 06 min",
        "versions.openmm",
        "8.6.1",
        "trained 19 ps⁻¹, of which 9 ps⁻¹ instantaneous",
    ):
        assert words in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def states(data, run, floor=None):
    """How the figures of a run stand."""
    floor = data.noise_floor if floor is None else floor
    return {
        name: status(name, run.metrics, data.reference.metrics, floor).status
        for name in OBSERVABLES
    }


def off(data, **figures):
    """The same report with other figures of the trained model."""
    run = Run("Trained", data.trained.metrics | figures)
    findings = assess(run.metrics, data.reference.metrics, data.noise_floor, Context())
    return replace(data, trained=run, findings=findings)


def test_page_tells_figures_within_their_bars_from_others_once(full, tmp_path):
    assert states(full, full.initial)["rdf_l1"] == MISSED
    for data in (off(full, adf_l1=None), off(full, rdf_l1=1.0, vacf_rms=0.5, vacf_rms_stderr=1.0)):
        stands = list(states(data, data.trained).values())
        assert OPEN in stands and GOOD in stands
        text, page = read(write_report(tmp_path, data))
        assert text.count(f"{stands.count(GOOD)} of 6 observables within tolerance") == 1
        assert text.count("class=headline") == 1 and "arget" not in page.text
        tiles = text[text.index("<ul class=observables>") : text.index("</ul>")]
        table = text[text.index("<thead>") : text.index("</table>")]
        ticks = [
            stand
            for run in (data.initial, data.trained, *data.comparison)
            for name, stand in states(data, run).items()
            if run.metrics.get(name, 0.0) is not None
        ]
        for state in (GOOD, MISSED, OPEN):
            assert tiles.count(f"<li class={state}>") == stands.count(state)
            assert table.count(f'class="tick {state}"') == ticks.count(state)


def test_bands_of_the_figures_are_the_bars(full, monkeypatch):
    monkeypatch.setattr(plots, "_svg", lambda figure: figure)

    def bands(axis):
        return [
            artist.get_window_extent().transformed(axis.transData.inverted())
            for artist in axis.patches
        ] + [c.get_paths()[0].vertices for c in axis.collections]

    m = full.reference.metrics
    reference = plots.Series("all-atom", m, plots.REFERENCE)
    edges = bands(plots.msd(reference, []).axes[1])[0]
    for lag, _ in m["msd_nm2"]:
        at = edges[np.isclose(edges[:, 0], lag), 1]
        allowed = TOLERANCES.of_msd(lag, m)
        assert at.min() == pytest.approx(1 - allowed) and at.max() == pytest.approx(1 + allowed)

    x, none = np.arange(3.0), np.zeros(3)
    live = dict.fromkeys(("diffusion", "msd", "rdf_l1", "adf_l1", "vacf_rms"), (x, none, none))
    panels = plots.validation(live, m, full.noise_floor).axes
    for name, panel in zip(live, panels):
        allowed = TOLERANCES.of(name, m, full.noise_floor)
        low, high = -allowed if name in ("diffusion", "msd") else 0.0, allowed
        band = bands(panel)[0]
        assert (band.y0, band.y1) == (pytest.approx(low), pytest.approx(high))


def test_numbers_for_programs_are_those_of_the_page(full, tmp_path):
    write_report(tmp_path, full)
    numbers = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    for name in ("reference", "initial", "trained", "noise_floor"):
        for field in (
            "rdf_l1",
            "adf_l1",
            "diffusion_cm2_per_s",
            "diffusion_stderr",
            "msd_nm2",
            "vacf",
            "temperature_K",
            "friction_per_ps",
            "timestep_fs",
        ):
            value = numbers[name][field]
            assert value is not None or numbers[name]["reasons"][field]
    assert numbers["trained"] == full.trained.metrics
    assert list(numbers["comparison"]) == ["Langevin"]
    stands = states(full, full.trained)
    within = f"{list(stands.values()).count(GOOD)} of 6 observables within tolerance"
    assert within in numbers["assessment"]["headline"]
    assert set(numbers["assessment"]["findings"][0]) == {
        "observable",
        "status",
        "deviation",
        "tolerance",
        "sentence",
        "bead",
        "run",
    }
    found = {finding["observable"]: finding for finding in numbers["assessment"]["findings"]}
    assert {name: found[name]["status"] for name in stands} == stands
    for name, target in numbers["targets"].items():
        assert (target["value"], target["target"]) == (
            found[name]["deviation"],
            found[name]["tolerance"],
        )
        assert target["met"] is {GOOD: True, MISSED: False, OPEN: None}[stands[name]]
    assert (
        numbers["precision"]["stderr"] == 0.05
        and numbers["training"]["sentence"] == "it had settled"
    )
    # g(r) of 1 / iteration comes below its bar at the second validation, 20/3 s after the first iteration.
    bar = max(0.01, 2 * numbers["noise_floor"]["rdf_l1"])
    cost = numbers["cost"]["observables"]["rdf_l1"]
    assert cost["tolerance"] == bar and len(cost["deviation"]) == 4
    assert cost["met_after_seconds"] == next(
        (k / 3 for k in (10, 20, 30, 40) if round(1 / k, 3) <= bar), None
    )
    timings = numbers["timings"]
    assert timings["wall_seconds"] == {"reference": 600, "train": 4000}
    assert (timings["all_atom_ns_per_day"], timings["speed_up"]) == (70, 20)
    shown = f"{100 * numbers['trained']['rdf_l1']:.2f}"
    assert shown in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_page_tells_what_friction_on_single_beads_costs(full, tmp_path):
    def with_viscosity(run, value, at_k, damping):
        figures = run.metrics | {
            "viscosity_mPa_s": value,
            "viscosity_stderr": value and 0.02,
            "apparent_viscosity": [[2.9, at_k, 0.02], [4.1, at_k / 2, 0.02]],
            "shear_damping_per_ps": damping,
            "shear_damping_stderr": 0.5,
        }
        why = {name: f"{name} was lost" for name, v in figures.items() if v is None}
        return Run(run.label, figures | {"reasons": why})

    def page_with(at_k, value, damping, conserves=None):
        trained = with_viscosity(full.trained, value, at_k, damping)
        data = replace(
            full,
            reference=with_viscosity(full.reference, 0.72, 0.7, 0.1),
            trained=replace(trained, metrics=trained.metrics | {"conserves_momentum": conserves}),
        )
        return read(write_report(tmp_path, data))[1].text

    words = "Friction on single beads damps shear waves of any length (Trained at 25 ± 0.5 ps⁻¹)"
    damped = page_with(3.1, None, 25.0)
    assert words in damped and "All-atom 0.70 ± 0.02 mPa\u202fs; Trained 3.10 ± 0.02" in damped
    assert "Viscosity_mPa_s was lost" in damped
    for good in (
        page_with(0.71, 0.73, 0.3),
        page_with(3.1, 3.2, 0.3),
        page_with(3.1, None, 25.0, conserves=True),
    ):
        assert "Friction on single beads damps" not in good and "Displacement correlation" in good
    # Where it is known to be there it is told, however small beside viscosity.
    assert "(Trained at 6.1 ± 0.5 ps⁻¹)" in page_with(0.75, None, 6.1, conserves=False)


@pytest.mark.slow
def test_equation_of_motion_is_named_where_it_is_the_cause(full, tmp_path):
    lags = np.linspace(0, 2, 101)

    def page_with(rate, damping, msd=1.01, viscosity=None, conserves=None):
        def run(of, rate, viscosity, at_k, damping):
            figures = of.metrics | {
                "transverse_current": [[t, np.exp(-rate * t)] for t in lags],
                "transverse_current_stderr": [[t, 0.005] for t in lags],
                "viscosity_mPa_s": viscosity,
                "viscosity_stderr": viscosity and 0.02,
                "apparent_viscosity": [[2.9, at_k, 0.02], [4.1, at_k / 2, 0.02]],
                "shear_damping_per_ps": damping,
                "shear_damping_stderr": 0.5,
                "msd_ratio": [[0.02, msd, 0.01]],
                "vacf_rms": 0.01,
            }
            why = {name: f"{name} was lost" for name, v in figures.items() if v is None}
            return Run(of.label, figures | {"reasons": why, "conserves_momentum": conserves})

        data = replace(
            full,
            reference=run(full.reference, 2.0, 0.72, 0.7, 0.1),
            comparison=[],
            trained=run(full.trained, rate, viscosity, 0.35 * rate, damping),
        )
        return read(write_report(tmp_path, data))[1].text

    single = page_with(20.0, 18.0)
    assert "Trained 0.09 instead of 0.79 at 0.12 ps" in single
    assert "Friction on single beads does not conserve momentum" in single
    assert "Momentum is conserved, so the range" in page_with(
        3.0, 0.1, viscosity=1.0, conserves=True
    )
    # What is known of a model goes before what its run shows, and of other runs nothing is said that they don't show.
    for damping in (0.1, 18.0):
        assert "Friction on single beads does not conserve momentum" in page_with(
            20.0, damping, conserves=False
        )
    assert "does not show whether momentum is conserved" in page_with(3.0, 0.1, viscosity=1.0)
    # 4 % is beyond the bar of displacements.
    for fine in (page_with(2.05, 0.1, viscosity=0.75), page_with(20.0, 18.0, msd=1.04)):
        assert "collective motion differs" not in fine


@pytest.mark.slow
def test_diffusion_in_other_boxes_follows_the_viscosity_of_the_reference(full, tmp_path):
    edge = full.reference.metrics["volume_nm3"] ** (1 / 3)
    reference = Run(
        "All-atom",
        full.reference.metrics
        | {
            "viscosity_mPa_s": 0.72,
            "diffusion_cm2_per_s": 2.4e-5,
            "diffusion_stderr": 0.1e-5,
            "diffusion_box_correction_cm2_per_s": 0.4e-5,
            "diffusion_box_correction_stderr": 0.03e-5,
        },
    )
    large = Run("Large", full.trained.metrics | {"volume_nm3": (2 * edge) ** 3})
    _, page = read(write_report(tmp_path, replace(full, reference=reference, comparison=[large])))
    assert "it is 2.80 ± 0.10 · 10⁻⁵ cm²/s in an infinite box, against 2.40 ± 0.10" in page.text
    assert (
        f"In the box of Large, {2 * edge:.3g} nm, all-atom is expected at 2.60 ± 0.10" in page.text
    )
    _, page = read(write_report(tmp_path, full))
    assert "Diffusion in an infinite box is not known" in page.text


def test_what_is_missing_is_named_with_its_reason(measured, tmp_path):
    _, figures, _ = measured
    data = ReportInput(
        "Only a reference", Run("All-atom", figures), reasons={"trained": "training was stopped"}
    )
    _, page = read(write_report(tmp_path, data))
    assert page.headings == SECTIONS
    for words in (
        "No trained model: training was stopped.",
        "No potentials: no potential was given.",
        "No friction and memory: no friction was given.",
        "No training curves: there is no training log.",
        "No speeds: the speed was not measured",
        "No provenance: none was given.",
    ):
        assert words in page.text
    numbers = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert numbers["trained"] is None and numbers["reasons"]["trained"] == "training was stopped"
    assert numbers["timings"]["speed_up"] is None and numbers["timings"]["reasons"]["speed_up"]


def test_runs_too_short_for_anything_still_make_a_page(measured, tmp_path):
    with BeadTrajectory.open(rattling(tmp_path / "short.h5", 4, frames=1)) as beads:
        short = measurement.measure(beads)
        figures = metrics.metrics(measurement.measure(beads, measured[0]), measured[0])
    data = ReportInput(
        "Short",
        Run("All-atom", metrics.metrics(short)),
        trained=Run("Trained", metrics.metrics(short, short)),
        noise_floor=metrics.noise_floor(short),
    )
    data = off(data)
    _, page = read(write_report(tmp_path / "both", data))
    assert "No displacements: too few frames for a displacement: 1." in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)
    data = off(ReportInput("Short", Run("All-atom", measured[1]), trained=Run("Trained", figures)))
    text, page = read(write_report(tmp_path / "one", data))
    assert "? Mean squared displacement not known" in page.text
    assert "squared displacement is not known: too few frames for a displacement: 1" in page.text
    assert text.count("of 5 observables within tolerance") == 1


def test_two_types_get_a_panel_for_every_pair(tmp_path):
    types = np.arange(64) % 2
    with BeadTrajectory.open(rattling(tmp_path / "mix.h5", 5, types=types)) as beads:
        reference = measurement.measure(beads)
    r = np.linspace(0.2, 0.6, 50)
    curves = [
        PairPotential(pair, r, None, np.exp(-r))
        for pair in (("HOH", "HOH"), ("HOH", "AR"), ("AR", "AR"))
    ]
    data = ReportInput(
        "Mixture",
        Run("All-atom", metrics.metrics(reference)),
        potentials=curves,
        memory=[Memory(f"trained, {n}", r - 0.2, 0 * r, 5.0, 5.0) for n in ("HOH", "AR")],
    )
    write_report(tmp_path, data)
    numbers = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert set(numbers["reference"]["diffusion_by_type"]) == {"HOH", "AR"}
    assert len(numbers["reference"]["rdf"]) == 3 and len(numbers["reference"]["adf"]) == 2


def test_training_log_is_read_while_it_is_written(log):
    with open(log, "a") as file:
        file.write("41,13.7,15.9")
    curves = read_training_log(log)
    assert curves["friction"][0][-1] == 40
    assert curves["validation_rdf_l1"][0].tolist() == [10, 20, 30, 40]
    with open(log, "a") as file:
        file.write(",1.3,,,\n39,14,15.5,1.2,,,\n")
    again = read_training_log(log)
    assert again["friction"][0].tolist() == list(range(1, 42))
    assert again["friction"][1][38] == 15.5


def test_wrong_training_logs_are_named_in_one_sentence(full, tmp_path):
    with pytest.raises(ValueError, match="training log .*gone.csv does not exist"):
        read_training_log(tmp_path / "gone.csv")
    bad = tmp_path / "bad.csv"
    bad.write_text("iteration,loss\n1,2\n2,what\n3,1\n")
    with pytest.raises(ValueError, match="line 3, column 'loss': expected a number, found 'what'"):
        read_training_log(bad)
    bad.write_text("step,loss\n1,2\n")
    with pytest.raises(ValueError, match="no column 'iteration'"):
        read_training_log(bad)


def test_report_without_reference_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs the observables of the reference"):
        write_report(tmp_path / "report", ReportInput("Nothing", Run("All-atom", {})))
    assert not (tmp_path / "report").exists()
