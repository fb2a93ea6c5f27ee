"""The directive `experiment-file`: every section and field of the experiment file, from its pydantic models.

Descriptions are the attribute docstrings of `openmm_cgadv.config`. The JSON schema is written beside the page.
"""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen
from docutils import nodes
from docutils.statemachine import StringList
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

from openmm_cgadv import config
from openmm_cgadv.config import Experiment

SCHEMA = "experiment.schema.json"


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a field that is a section, else None."""
    candidates = [field.annotation, *typing.get_args(field.annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def type_name(annotation) -> str:
    """Return a type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0]) + bounds(arguments[1:])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        names = [type_name(one) for one in arguments if one is not type(None)]
        return " or ".join(names)
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    names = {"float": "number", "int": "integer", "str": "text", "bool": "true or false"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, name.lower())


def bounds(metadata) -> str:
    """Return the limits of a number in words."""
    signs = {Gt: ("gt", ">"), Ge: ("ge", "≥"), Lt: ("lt", "<"), Le: ("le", "≤")}
    found = [
        f"{sign} {getattr(one, name):g}"
        for one in flat(metadata)
        for kind, (name, sign) in signs.items()
        if isinstance(one, kind)
    ]
    return f" ({', '.join(found)})" if found else ""


def flat(metadata):
    """Return the constraints of a field, those inside a `Field` as well."""
    for one in metadata:
        if isinstance(one, FieldInfo):
            yield from one.metadata
        elif not isinstance(one, (MinLen, Len)):
            yield one


def default(field: FieldInfo) -> str:
    """Return the default of a field as it is written in a file."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "null"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def rows(model: type[BaseModel]) -> list[str]:
    """Return Markdown for the fields of a section that are no sections themselves."""
    lines = ["| field | type | default | description |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if section_of(field) is None:
            kind = type_name(field.annotation) + bounds(field.metadata)
            text = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{name}` | {kind} | {default(field)} | {text} |")
    return lines


def markdown(model: type[BaseModel] = Experiment, path: str = "") -> list[str]:
    """Return Markdown for a section and those inside it."""
    lines = []
    if path:
        doc = " ".join((model.__doc__ or "").split())
        lines += [f"## {path}", "", doc, "", *rows(model), ""]
    else:
        lines += ["## Top level", "", *rows(model), ""]
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            lines += markdown(inner, f"{path}.{name}" if path else name)
    return lines


class ExperimentFile(SphinxDirective):
    """Insert the sections of the experiment file."""

    def run(self):
        self.env.note_dependency(config.__file__)
        content = StringList(markdown(), source="openmm_cgadv/config.py")
        node = nodes.section()
        node.document = self.state.document
        nested_parse_with_titles(self.state, content, node)
        return node.children


def write_schema(app, exception) -> None:
    """Write the JSON schema into the site."""
    if exception is None and app.builder.format == "html":
        folder = Path(app.outdir) / "reference"
        folder.mkdir(parents=True, exist_ok=True)
        schema = Experiment.model_json_schema()
        (folder / SCHEMA).write_text(json.dumps(schema, indent=1) + "\n")


def setup(app):
    app.add_directive("experiment-file", ExperimentFile)
    app.connect("build-finished", write_schema)
    return {"parallel_read_safe": True}
