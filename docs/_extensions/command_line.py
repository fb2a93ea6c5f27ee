"""The directive `command-line`: the commands of `cgadv` with their arguments and options, from typer."""

from __future__ import annotations

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles


def describe(name: str, command) -> list[str]:
    """Return Markdown for a command."""
    context = command.make_context(f"cgadv {name}", [], resilient_parsing=True)
    usage = command.get_usage(context).removeprefix("Usage: ")
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [
        "| `{}` | {} |".format(*(" ".join(text.split()).replace("|", "\\|") for text in record))
        for record in records
        if record
    ]
    return [
        *(f"## {name}", "", command.help or "", "", "```text", usage, "```", ""),
        *("| argument or option | description |", "|---|---|", *rows, ""),
    ]


class CommandLine(SphinxDirective):
    """Insert the commands of `cgadv`."""

    def run(self):
        from openmm_cgadv.workflow.cli import app

        group = typer.main.get_command(app)
        lines = [
            line for name, command in group.commands.items() for line in describe(name, command)
        ]
        node = nodes.section()
        node.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, source="cli.py"), node)
        return node.children


def setup(app):
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
