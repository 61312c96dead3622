"""What pydantic found wrong, said as ``FILE:LINE: key.path: what is wrong; what would be right``, one line each."""

import difflib
import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import Tag, ValidationError
from pydantic_core import ErrorDetails

from vitops.config.base import KeyProblem, Section
from vitops.config.merge import Tree
from vitops.config.pipelines import DIGEST_PATTERN
from vitops.config.pretrained import FILE_PATTERN, SHA256_PATTERN, TIMM_PATTERN
from vitops.config.training import RANDAUGMENT_PATTERN
from vitops.config.yaml_lines import KeyPath

MOST = 10
NAME_RULE = "a name has lower-case letters, digits, - and _ only, starts with a letter or digit, and has at most 63"

_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "model": "a mapping (key: value)",
    "model_attributes": "a mapping (key: value)",
    "dict": "a mapping (key: value)",
    "tuple": "a list",
    "finite_number": "a finite number",
}
_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_PATTERNS = {
    FILE_PATTERN: "must be a .safetensors file: other formats can run code when they are read",
    SHA256_PATTERN: "must be the 64 hex digits that sha256sum prints of the file",
    TIMM_PATTERN: "must be an architecture and a tag of timm, e.g. resnet34.a1_in1k",
    DIGEST_PATTERN: "must be the 64 hex digits of an artifact's digest, as `vitops show PIPELINE/STAGE` prints it",
    RANDAUGMENT_PATTERN: "must be a policy string of timm, e.g. rand-m9-mstd0.5-inc1 "
    "(sections m, n, p, mstd, mmax, inc, each with its number, and tweights, t3a or t3aw)",
}


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'x'?``, or all that is known when nothing comes near."""
    names = list(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def located(tree: Tree, path: KeyPath, message: str, *, below: KeyPath = ()) -> str:
    """One problem at ``path`` of ``tree``, which itself stands at ``below`` in its file."""
    key = ".".join(str(part) for part in (*below, *path))
    return ": ".join(part for part in (tree.place(path), key, message) if part)


def describe(error: ValidationError, tree: Tree, annotation: Any, *, below: KeyPath = ()) -> str:
    """All problems of one validation against ``annotation``, at most ten, one line each."""
    found: dict[KeyPath, list[str]] = {}
    nouns: dict[KeyPath, list[str]] = {}
    # A missing key is often the shadow of a misspelt one, so it is named after it.
    for detail in sorted(error.errors(include_url=False), key=lambda detail: detail["type"] == "missing"):
        path, kind = _trace(annotation, detail["loc"])
        if noun := _NOUNS.get(_stem(detail["type"])):
            nouns.setdefault(path, []).append(noun)
            found[path] = [f"must be {' or '.join(nouns[path])}, got {_shown(detail['input'])}"]
        else:
            path, message = _message(detail, path, kind)
            found.setdefault(path, []).append(message)
    lines = [located(tree, path, message, below=below) for path, messages in found.items() for message in messages]
    more = [f"... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "\n".join(lines[:MOST] + more)


def _message(detail: ErrorDetails, path: KeyPath, kind: Any) -> tuple[KeyPath, str]:
    """Where the problem really is, and what to say; ``kind`` is the annotation of what stands at ``path``'s mapping."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return path, f"unknown key '{path[-1]}'{did_you_mean(path[-1], _fields(kind))}"
        case "missing":
            return path[:-1], f"the key '{path[-1]}' is missing"
        case "union_tag_invalid":
            name = context["discriminator"].strip("'")
            return (*path, name), f"unknown {name} '{context['tag']}'{did_you_mean(context['tag'], _tags(kind))}"
        case "union_tag_not_found":
            name = context["discriminator"].strip("'")
            return path, f"the key '{name}' is missing; known: {', '.join(_tags(kind))}"
        case "literal_error":
            known = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
            return path, f"must be one of {', '.join(known)}, got {_shown(detail['input'])}{_near(detail, known)}"
        case "value_error" if isinstance(problem := context["error"], KeyProblem):
            return (*path, *problem.key.split(".")), problem.message
        case "value_error":
            return path, str(context["error"])
        case "string_pattern_mismatch" if detail["loc"][-1] == "[key]":
            return path, NAME_RULE
        case "string_pattern_mismatch" if context["pattern"] in _PATTERNS:
            return path, f"{_PATTERNS[context['pattern']]}, got {_shown(detail['input'])}"
        case limit if limit in _LIMITS:
            field, words = _LIMITS[limit]
            return path, f"must be {words} {context[field]:g}, got {_shown(detail['input'])}"
    said = detail["msg"]
    return path, f"{said[:1].lower()}{said[1:]}, got {_shown(detail['input'])}"


def _near(detail: ErrorDetails, known: list[str]) -> str:
    near = difflib.get_close_matches(str(detail["input"]), known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _stem(error_type: str) -> str:
    for suffix in ("_type", "_parsing", "_from_float"):
        error_type = error_type.removesuffix(suffix)
    return error_type


def _trace(annotation: Any, location: tuple[int | str, ...]) -> tuple[KeyPath, Any]:
    """Pydantic's location as a key path (it names union members too), and the annotation of the innermost section."""
    path: list[int | str] = []
    around = annotation
    for part in location:
        options = _options(annotation)
        if isinstance(part, str) and part.startswith("["):  # pydantic's "[key]", and our tags of a value's form
            annotation = around = _of_form(annotation, part) or annotation
            continue
        if len(options) > 1 and part in _tags(annotation):
            annotation = around = next(option for option in options if _tag(option) == part)
            continue
        inner = _inner(annotation, part)
        if inner is None:
            continue
        path.append(part)
        around, annotation = annotation, inner
    return tuple(path), (around if path and not _options(annotation) else annotation)


def _of_form(annotation: Any, tag: str) -> Any:
    """The member of a union that carries our ``tag``; None where there is none."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *metadata = typing.get_args(annotation)
        return annotation if Tag(tag) in metadata else _of_form(inner, tag)
    if typing.get_origin(annotation) not in {typing.Union, types.UnionType}:
        return None
    found = (_of_form(argument, tag) for argument in typing.get_args(annotation))
    return next((member for member in found if member is not None), None)


def _inner(annotation: Any, part: int | str) -> Any:
    """The annotation of ``part`` in a section, mapping or list; None where ``part`` only names a union member."""
    for option in _members(annotation):
        if isinstance(option, type) and issubclass(option, Section):
            field = option.model_fields.get(str(part))
            return field.annotation if field else object
        if typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
        if typing.get_origin(option) is tuple and isinstance(part, int):
            return object
    return None


def _members(annotation: Any) -> list[Any]:
    """The members of a union, however it is written and annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in {typing.Union, types.UnionType}:
        return [member for argument in typing.get_args(annotation) for member in _members(argument)]
    return [annotation]


def _options(annotation: Any) -> list[type[Section]]:
    return [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, Section)]


def _fields(annotation: Any) -> list[str]:
    return [name for option in _options(annotation) for name in option.model_fields]


def _tag(section: type[Section]) -> str | None:
    field = section.model_fields.get("kind") or section.model_fields.get("flow")
    return None if field is None else field.default


def _tags(annotation: Any) -> list[str]:
    return [tag for option in _options(annotation) if (tag := _tag(option))]
