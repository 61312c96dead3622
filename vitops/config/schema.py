"""The JSON Schema of pipelines.yaml, for editors and for readers.

A profile is a part of a pipeline, so its schema is the pipeline's with nothing required and with unions told apart by
their keys alone.
"""

import ast
import inspect
import itertools
import json
from types import ModuleType
from typing import Any

from vitops.config import compression, datasets, models, objectives, pipelines, pretrained, training
from vitops.config.pipelines import Project

PATH = "docs/pipelines.schema.json"
_REFERENCE = "#/$defs/"
_MODULES = (compression, datasets, models, objectives, pipelines, pretrained, training)

JSON = dict[str, Any]


def schema() -> JSON:
    """The schema of the whole file, profiles included (JSON Schema 2020-12)."""
    whole = Project.model_json_schema()
    definitions = whole["$defs"]
    _describe(definitions)
    parts: JSON = {}
    for name in ("Retrain", "Distill", "Compress"):
        part = _part(definitions[name], definitions, parts)
        definitions[name]["properties"]["profiles"] = {
            "type": "object",
            "description": "Named parts laid over this pipeline; `quick` is the default.",
            "additionalProperties": {"anyOf": [part, {"type": "null"}]},
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": "pipelines.yaml",
        "$defs": dict(sorted({**definitions, **parts}.items())),
    }


def text() -> str:
    """The exported file's content."""
    return json.dumps(schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _describe(definitions: JSON) -> None:
    """Give each property the string that stands below its field in the source, inherited fields included."""
    said = {name: texts for module in _MODULES for name, texts in _field_texts(module).items()}
    found = (value for module in _MODULES for value in vars(module).values())
    sections = {value.__name__: value for value in found if isinstance(value, type)}
    for name, definition in definitions.items():
        for base in reversed(sections[name].__mro__):
            for field, text in said.get(base.__name__, {}).items():
                definition["properties"][field]["description"] = text


def _field_texts(module: ModuleType) -> dict[str, dict[str, str]]:
    """Class -> field -> the string below it."""
    classes = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)]
    return {
        section.name: {
            field.target.id: inspect.cleandoc(text)
            for field, below in itertools.pairwise(section.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and (text := _string(below))
        }
        for section in classes
    }


def _string(statement: ast.stmt) -> str | None:
    constant = statement.value if isinstance(statement, ast.Expr) else None
    return constant.value if isinstance(constant, ast.Constant) and isinstance(constant.value, str) else None


def _part(value: Any, definitions: JSON, parts: JSON) -> Any:
    """``value`` with nothing required, and the definitions it refers to likewise, collected in ``parts``."""
    if isinstance(value, list):
        return [_part(item, definitions, parts) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _part_reference(value["$ref"].removeprefix(_REFERENCE), definitions, parts)
    kept = {key: item for key, item in value.items() if key not in {"required", "discriminator", "default"}}
    return {"anyOf" if key == "oneOf" else key: _part(item, definitions, parts) for key, item in kept.items()}


def _part_reference(name: str, definitions: JSON, parts: JSON) -> JSON:
    if name + "Part" not in parts:
        parts[name + "Part"] = None
        parts[name + "Part"] = _part(definitions[name], definitions, parts)
    return {"$ref": _REFERENCE + name + "Part"}
