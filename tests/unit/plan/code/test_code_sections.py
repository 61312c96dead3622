"""Of configuration and tables of implementations counts what no parameter and no root says."""

import textwrap

import pytest
from digests import changed, digest_of, edit, grow


def test_a_reached_table_counts_what_it_says_about_roots(package):
    table = {"a": "pkg.methods.first:First"}
    grow(package, b=f"TABLE = {table}\n\ndef root(kind):\n    return TABLE[kind]\n")
    (package / "methods/second.py").write_text("class Second:\n    pass\n")
    roots = ("pkg.b:root", "pkg.methods.first:First")
    before = digest_of(package, *roots)
    grow(
        package, b=f"TABLE = {table | {'b': 'pkg.methods.second:Second'}}\n\ndef root(kind):\n    return TABLE[kind]\n"
    )
    assert digest_of(package, *roots) == before
    swapped = {"b": "pkg.methods.first:First", "a": "pkg.methods.second:Second"}
    grow(package, b=f"TABLE = {swapped}\n\ndef root(kind):\n    return TABLE[kind]\n")
    assert changed(before, digest_of(package, *roots)) == {"pkg.b.TABLE"}


SECTIONS = """
    import enum
    import re
    from dataclasses import dataclass
    from typing import ClassVar, Final

    from pkg.config.base import Section

    class Outer(Section):
        depth: int = 1

    class Schedule(Outer):
        warmup: int = 5
        SCALE: ClassVar[int] = 7

        def scaled(self):
            return self.SCALE

    class Making(Section):
        @classmethod
        def made(cls):
            return cls()

    class Maker(Making):
        size: int = 15
        _hidden: int = 16
        FIXED: Final[int] = 17
        SHARED: 'ClassVar[int]' = 18

    class Mode(enum.Enum):
        FAST = 10

    @dataclass
    class Plain:
        size: int = 11

    FLAGS = re.IGNORECASE | 12
    FIRST = (13, 14)[0]
    Choice = Outer | Schedule
"""


@pytest.mark.parametrize(
    ("use", "old", "counts"),
    [
        ("settings.Schedule.model_validate(x.config)", "warmup: int = 5", False),
        ("settings.Schedule.model_validate(x.config)", "depth: int = 1", False),
        ("isinstance(x, settings.Schedule)", "warmup: int = 5", False),
        ("cast(settings.Schedule, x)", "warmup: int = 5", False),
        ("settings.Schedule | None", "warmup: int = 5", False),
        ("settings.Schedule.SCALE", "warmup: int = 5", False),
        ("settings.Schedule.scaled(x)", "warmup: int = 5", False),
        ("settings.Schedule()", "warmup: int = 5", True),
        ("settings.Schedule.model_validate({})", "warmup: int = 5", True),
        ("settings.Schedule.model_validate({**x.config})", "warmup: int = 5", True),
        ("settings.Schedule.model_validate(x)", "warmup: int = 5", True),
        ("settings.Schedule.model_construct()", "depth: int = 1", True),
        ("settings.Schedule.model_fields['warmup'].default", "warmup: int = 5", True),
        ("x(settings.Schedule)", "warmup: int = 5", True),
        ("{'a': settings.Schedule}[x]()", "warmup: int = 5", True),
        ("[make() for make in (settings.Schedule,)]", "warmup: int = 5", True),
        ("settings.Maker.made()", "size: int = 15", True),
        ("settings.Maker.model_validate(x.config)", "_hidden: int = 16", True),
        ("settings.Maker.model_validate(x.config)", "FIXED: Final[int] = 17", True),
        ("settings.Maker.model_validate(x.config)", "SHARED: 'ClassVar[int]' = 18", True),
        ("settings.Schedule()", "depth: int = 1", True),
        ("settings.Schedule.model_validate(x.config)", "SCALE: ClassVar[int] = 7", True),
        ("settings.Mode.FAST", "FAST = 10", True),
        ("settings.Plain", "size: int = 11", True),
        ("settings.FLAGS", "IGNORECASE | 12", True),
        ("settings.FIRST", "(13, 14)[0]", True),
        ("settings.Choice", "Outer | Schedule", False),
    ],
)
def test_a_default_counts_where_code_may_make_a_section_itself(package, use, old, counts):
    (package / "config/settings.py").write_text(textwrap.dedent(SECTIONS))
    grow(package, b=f"from pkg.config import settings\n\ndef root(x):\n    return {use}\n")
    before = digest_of(package, "pkg.b:root")
    new = old.replace("1", "3").replace("5", "6").replace("7", "8") if any(map(str.isdigit, old)) else f"{old} | int"
    edit(package, "config/settings.py", old, new)
    assert (digest_of(package, "pkg.b:root") != before) == counts


def test_a_new_section_with_calls_among_its_defaults_changes_nothing(package):
    before = digest_of(package)
    text = "def later(x):\n    return x\n\nclass New(Section):\n    size: int = later(3)\n    one: One = One()\n"
    with (package / "config/base.py").open("a") as stream:
        stream.write(text)
    assert digest_of(package) == before
