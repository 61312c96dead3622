"""YAML read event by event, remembering where every key stands.

Laws: only plain data comes out (null, booleans, numbers, strings, lists, mappings with string keys); scalars follow the
core schema of YAML 1.2, as DVC reads the same file (``1e-3`` is a number, ``no`` a string); a duplicate key, a tag, a
merge key and anything oversized are errors with their line. Depth is checked before anything recurses: composing nodes
with PyYAML's C code overflows its stack on a few thousand brackets.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vitops.errors import UsageError

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 32

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,400}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Document:
    """Plain data and, for each key path in it, the line where that key stands (counted from 1)."""

    file: str
    value: Any
    lines: dict[KeyPath, int]

    def places(self) -> dict[KeyPath, str]:
        """Key path -> ``FILE:LINE``."""
        return {path: f"{self.file}:{line}" for path, line in self.lines.items()}


def read(path: Path, *, name: str) -> Document:
    """The document in ``path``; ``name`` stands for it in messages. Raises UsageError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error
    try:
        return parse(content.decode("utf-8-sig"), name=name)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: is not UTF-8 text") from error


def parse(text: str, *, name: str) -> Document:
    """The document in ``text``. Raises UsageError with ``name`` and the line of what is wrong."""
    if len(text) > MAX_BYTES:
        raise UsageError(f"{name}: has {len(text)} characters; a configuration may have {MAX_BYTES}")
    builder = _Builder(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)), name)
    try:
        return Document(name, builder.document(), builder.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{name}:{line}: is not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: is not YAML: {' '.join(str(error).split())}") from error


class _Builder:
    """Turns events into plain data; counts what aliases expand to, so that no small file becomes a huge tree."""

    def __init__(self, events: Iterator[yaml.Event], name: str) -> None:
        self.events = events
        self.name = name
        self.lines: dict[KeyPath, int] = {}
        self.nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}

    def document(self) -> Any:
        next(self.events)
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self.events), ())
        next(self.events)
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._wrong(after, "a second document begins here; the file must hold one")
        return value

    def _value(self, event: yaml.Event, path: KeyPath) -> Any:
        before = self.nodes
        self._count(event, 1)
        self.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag is not None:
            raise self._wrong(event, f"the tag {event.tag!r} is not read; write plain values only")
        if len(path) > MAX_DEPTH:
            raise self._wrong(event, f"is nested deeper than {MAX_DEPTH} levels")
        value = self._content(event, path)
        if event.anchor:
            self.anchors[event.anchor] = value, self.nodes - before
        return value

    def _content(self, event: yaml.Event, path: KeyPath) -> Any:
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event.value) if event.implicit[0] else event.value
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        items: list[Any] = []
        while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
            items.append(self._value(item, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key, line = self._key(event), _line(event)
            inner = (*path, key)
            if key in result:
                where = ".".join(str(part) for part in inner)
                first = self.lines[inner]
                raise self._wrong(event, f"{where}: the key stands twice (first in line {first}); delete one")
            self.lines[inner] = line
            result[key] = self._value(next(self.events), inner)
        return result

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None:
            raise self._wrong(event, "a key must be a plain word")
        if event.implicit[0] and event.value == "<<":
            raise self._wrong(event, "merge keys (<<) are not read; write the values out or use a profile")
        if event.implicit[0] and not isinstance(_plain(event.value), str | int):
            raise self._wrong(event, f"the key {event.value!r} is not a word; put it in quotes if it is meant as one")
        return str(event.value)

    def _alias(self, event: yaml.AliasEvent) -> Any:
        if event.anchor is None or event.anchor not in self.anchors:
            raise self._wrong(event, f"the alias *{event.anchor} names no value that ended before it")
        value, size = self.anchors[event.anchor]
        self._count(event, size)
        return value

    def _count(self, event: yaml.Event, more: int) -> None:
        self.nodes += more
        if self.nodes > MAX_NODES:
            raise self._wrong(event, f"expands to more than {MAX_NODES} values; use fewer aliases")

    def _wrong(self, event: yaml.Event, message: str) -> UsageError:
        return UsageError(f"{self.name}:{_line(event)}: {message}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain(text: str) -> Any:
    """A scalar without quotes, by YAML 1.2's core schema; infinities and octals stay text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
