"""The JSON Schema of pipelines.yaml, for editors and for readers.

A profile is a part of a pipeline, so its schema is the pipeline's with nothing required and with unions told apart by
their keys alone.
"""

import json
from typing import Any

from vitops.config.pipelines import Project

PATH = "docs/pipelines.schema.json"
_REFERENCE = "#/$defs/"

JSON = dict[str, Any]


def schema() -> JSON:
    """The schema of the whole file, profiles included (JSON Schema 2020-12)."""
    whole = Project.model_json_schema()
    definitions = whole["$defs"]
    parts: JSON = {}
    for name in ("Retrain", "Compress"):
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
