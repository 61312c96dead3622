"""What every configuration section obeys.

Laws: a section is frozen and rejects unknown keys; ``parameters`` is the canonical JSON that enters a stage key;
a field added after a release declares its *neutral* value (the behaviour before it existed) and is left out of
``parameters`` while it has it, so that old artifacts stay valid. A default is never left out: changing it changes keys.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

JSON = dict[str, Any]


class KeyProblem(ValueError):
    """A value that contradicts its neighbours: ``key`` is relative to the section that noticed it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key} {message}")
        self.key = key
        self.message = message


class Section(BaseModel):
    """A part of pipelines.yaml. ``implementation`` names the code (``module:attribute``) that a ``kind`` selects."""

    # Not use_attribute_docstrings: reading the source at import costs every command; schema.py does it when asked.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    implementation: ClassVar[str | None] = None

    def parameters(self) -> JSON:
        """The resolved values as JSON, without fields at their neutral value."""
        values: JSON = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            extra = field.json_schema_extra
            if isinstance(extra, dict) and "neutral" in extra and value == extra["neutral"]:
                continue
            values[name] = _plain(value)
        return values

    def sections(self) -> "list[Section]":
        """This section and every section inside it, depth first: what a stage's code roots are read from."""
        found: list[Section] = [self]
        for name in type(self).model_fields:
            value = getattr(self, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, Section):
                    found.extend(item.sections())
        return found


def later_field(default: Any, **kwargs: Any) -> Any:
    """A field added after stage keys were published: its default is also its neutral value, and never changes again.

    A default that has to change makes it an ordinary field: then its value stands in every key.
    """
    return Field(default, json_schema_extra={"neutral": default}, **kwargs)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.parameters()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
