"""Code blocks and links of Markdown pages, and a folder in which the blocks run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from all_atom_files import all_atom, save, wrap
from systems import jittered_lattice, liquid_box, random_spec, random_theta
from typer.testing import CliRunner

from openmm_cgadv import Model, save_bundle
from openmm_cgadv.dynamics import GeneralizedLangevin
from openmm_cgadv.workflow.cli import app

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run|shortened): (?P<note>.*?) -->\n+)?"
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes
    ----------
    language, text : str
    line : int
        Line of the page at which it begins.
    mark : str or None
        "not run" or "shortened", from an HTML comment above the block.
    note : str
        Why it is not run; or the options that replace those of a command.
    """

    language: str
    text: str
    line: int
    mark: str | None
    note: str


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page."""
    text = page.read_text()
    return [
        Block(
            found["language"],
            found["text"],
            text[: found.start()].count("\n") + 1,
            found["mark"],
            found["note"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and images, without those to other sites."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def commands(block: Block) -> list[list[str]]:
    """Return the words of each command of a shell block, with what a mark shortens."""
    text = block.text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [shortened(words, shlex.split(block.note)) for words in lines if words]


def shortened(words: list[str], replacement: list[str]) -> list[str]:
    """Return a command with the values of some options replaced; options it lacks are added."""
    words = list(words)
    for name, value in zip(replacement[::2], replacement[1::2]):
        assert name.startswith("--"), f"{name}: expected an option"
        if name in words and name != "--set":
            words[words.index(name) + 1] = value
        else:
            words += [name, value]
    return words


def run_command(words: list[str]) -> None:
    """Run a `cgadv` command in this process."""
    assert words[0] == "cgadv", f"{' '.join(words)}: expected a command of cgadv, or a mark"
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{' '.join(words)}: {done.output}"


def prepare(folder: Path) -> None:
    """Write the files that pages name: a model bundle and an all-atom trajectory."""
    box = liquid_box(60, 33.0)
    spec = random_spec(1, r_cut=0.5)
    model = Model(
        spec=spec,
        theta=random_theta(spec, 0),
        masses=np.array([18.0]),
        temperature=298.15,
        timestep=0.005,
        friction=GeneralizedLangevin(1, 2, 20.0).export(),
        types=np.zeros(60, int),
        positions=jittered_lattice(60, box, 0.1, 0).numpy(),
        box=box.numpy(),
    )
    save_bundle(model, folder / "runs" / "water" / "model.cg")
    topology, x, boxes = all_atom(molecules=30, box=2.0 * np.eye(3), speed=0.05)
    save(folder / "water.gro", topology, x[:1], boxes[:1])
    save(folder / "water.xtc", topology, wrap(x, boxes), boxes)
