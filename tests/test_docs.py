"""The pages of the documentation: their code runs, their experiment files are valid, their links exist."""

import ast
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from documents import ROOT, blocks, commands, links, prepare, run_command
from pydantic import BaseModel

import openmm_cgadv as cg
from openmm_cgadv import BeadTrajectory
from openmm_cgadv.bundle import FILES, PLUGIN_FILES
from openmm_cgadv.config import Experiment, load_experiment
from openmm_cgadv.methods.adversarial.log import COLUMNS

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MINIMAL = {"reference": {"temperature_K": 298.15, "water": "spce"}}
RUN = ("python", "bash")


def name(page):
    return page.relative_to(DOCS).as_posix()


def running(page):
    """Blocks of a page that are run: none of those that explain what to write for an extension."""
    if page.name.startswith("adding_"):
        return []
    return [block for block in blocks(page) if block.language in RUN and block.mark != "not run"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch):
    """Where the commands are given, with the files that they name."""
    for path in prepared.rglob("*"):
        target = tmp_path / path.relative_to(prepared)
        if path.is_dir():
            target.mkdir()
        else:
            os.link(path, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_reporters(names):
    assert names["simulation"].currentStep == 11000
    with BeadTrajectory.open("beads.h5") as beads:
        assert beads.n_frames == 2500
    assert json.loads(Path("observables.json").read_text())["diffusion_cm2_per_s"] > 0
    state = names["simulation"].context.getState(energy=True)
    assert np.isfinite(state.getPotentialEnergy()._value)


def check_bulk_run(names):
    written = {path.name for path in Path("runs/bulk").iterdir()}
    assert {"trajectory.dcd", "topology.pdb", "state.csv"} <= written


def check_mapping(names):
    with BeadTrajectory.open("beads.h5") as beads:
        assert beads.n_beads == 30


CHECKS = {
    "how_to/analyse_a_running_simulation.md": check_reporters,
    "how_to/simulate_a_bulk_liquid.md": check_bulk_run,
    "how_to/prepare_a_reference.md": check_mapping,
}


@pytest.fixture
def openmmml(page):
    """OpenMM-ML where a page uses it; sources that are not installed have no entry point."""
    if any("openmmml" in block.text for block in running(page)):
        found = pytest.importorskip("openmmml", reason="the package openmmml is not installed")
        from openmm_cgadv.openmmml import Factory

        found.MLPotential._implFactories.setdefault("cgadv", Factory())


@pytest.mark.parametrize("page", [page for page in PAGES if running(page)], ids=name)
def test_code_of_page_runs(page, folder, openmmml):
    names = {"__name__": "__main__"}
    for block in running(page):
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        else:
            for words in commands(block):
                run_command(words)
    if name(page) in CHECKS:
        CHECKS[name(page)](names)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_experiment_files_of_page_are_valid(page, tmp_path):
    for block in blocks(page):
        if block.language != "yaml":
            continue
        file = tmp_path / "experiment.yaml"
        file.write_text(yaml.safe_dump(MINIMAL | yaml.safe_load(block.text)))
        load_experiment(file)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES], ids=str)
def test_links_of_page_exist(page):
    for target in links(page):
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), f"{page}: found a link to {target}, expected a file of that name"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page}: found no heading for {target}"


def anchors(page):
    """Anchors of a page's headings, as GitHub and MyST make them."""
    lines = [
        line.lstrip("#").strip() for line in page.read_text().splitlines() if line.startswith("#")
    ]
    kept = [
        "".join(c for c in line.lower() if c.isalnum() or c in " -_").replace(" ", "-")
        for line in lines
    ]
    return set(kept)


def sections(model):
    yield model
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from sections(field.annotation)


def test_every_field_of_the_experiment_file_is_described():
    missing = [
        f"{section.__name__}.{name}"
        for section in sections(Experiment)
        for name, field in section.model_fields.items()
        if not field.description and field.annotation not in sections(Experiment)
    ]
    assert not missing


def test_every_column_of_the_log_is_described():
    text = (DOCS / "reference" / "log_columns.md").read_text()
    described = [
        f"`{column}`" in text or f"`{column.split('_')[0]}_…`" in text
        for column in COLUMNS
        if not column.endswith("_stderr")
    ]
    assert all(described)


def test_every_file_of_a_bundle_is_described():
    text = (DOCS / "reference" / "file_formats.md").read_text()
    assert [name for name in (*FILES, *PLUGIN_FILES) if f"`{name}`" not in text] == []


def texts():
    """Texts in the sources, with a mark in place of what is inserted into them."""
    for file in [ROOT / "setup.py", *(ROOT / "openmm_cgadv").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                yield "".join(part if isinstance(part, str) else "§" for part in parts)


def test_messages_in_troubleshooting_are_those_of_the_program():
    page = (DOCS / "troubleshooting.md").read_text()
    known = "\n".join(texts())
    messages = [
        part.strip(" ;,?")
        for row in re.findall(r"^\|(.*?)\|", page, re.MULTILINE)
        for message in re.findall(r"`([^`]+)`", row)
        for part in message.split("…")
    ]
    assert len(messages) > 40
    assert [message for message in messages if message not in known] == []


def test_every_public_name_is_in_the_python_api():
    text = (DOCS / "reference" / "python_api.md").read_text()
    public = [name for name in cg.__all__ if not name.startswith("_")]
    assert [name for name in public if not re.search(rf"\.{name}$", text, re.MULTILINE)] == []


def test_script_installs_the_versions_of_the_extra():
    (extra,) = re.findall(r"^docs = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    script = (ROOT / "scripts" / "docs").read_text()
    pins = re.findall(r'"([^"]+)"', extra)
    assert len(pins) == 3 and f"{' '.join(pins)}\n" in script


def test_every_page_is_in_a_table_of_contents():
    listed = {DOCS / "index.md"}
    for page in PAGES:
        for block in toctrees(page):
            for entry in block:
                listed |= set(DOCS.glob(f"{os.path.relpath(page.parent / entry, DOCS)}.md"))
    assert set(PAGES) <= listed


def toctrees(page):
    text = page.read_text()
    for part in text.split("```{toctree}")[1:]:
        lines = [line.strip() for line in part.split("```")[0].splitlines()]
        yield [line for line in lines if line and not line.startswith(":")]
