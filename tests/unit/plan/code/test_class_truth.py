"""Whatever classes do to each other: a number that changes what a program returns changes the program's digest."""

import random
import re
import sys
import textwrap
from importlib import import_module, invalidate_caches

import pytest
from digests import digest_of, grow

NUMBER = re.compile(r"\b1\d\d\b")
MEMBERS = ("rate", "size", "run", "make", "fold", "table")
ASKED = {
    "plain": "{c}().run()",
    "by name": "{c}.rate",
    "a class method": "{c}.make().size",
    "a static method": "{c}.fold()",
    "a dictionary of it": "{c}.table['x']",
    "a computed name": "getattr({c}(), 'ra' + 'te')",
    "its type": "type({c}()).size",
    "all of it": "sorted(v for k, v in vars({c}).items() if isinstance(v, int) and k[0] != '_')",
    "its order": "[vars(kind).get('rate') for kind in {c}.__mro__]",
    "a registry": "[item.rate for item in R.kept.values()]",
    "one of a registry": "{c}.kept[{name!r}].rate",
    "one of a registry, computed": "R.kept[{name!r}.strip()].size",
    "a registry under another name": "(lambda kept: kept[{name!r}]().run())(R.kept)",
    "a registry by getattr": "getattr(R, 'kept')[{name!r}].rate",
    "a registry by get": "R.kept.get({name!r}).rate",
    "subclasses": "[item.rate for item in R.__subclasses__()]",
    "an object's class": "type('D', ({c},), {{}})().run()",
    "a class in a function": "made({c})().run()",
    "super from outside": "super({c}, {c}()).__getattribute__('size')",
    "the base": "getattr({c}, '__base__').__dict__.get('size')",
    "a pattern": "matched({c}())",
    "a format": "'{{0.rate}}'.format({c})",
}
MILD = (
    "plain",
    "by name",
    "a class method",
    "a static method",
    "its type",
    "one of a registry",
    "a class in a function",
)
PATCHES = ("", "", "", "", "del_", "{c}.rate = 177\n", "{c}.late = 178\n", "R.rate = 176\n")
PATCHES += ("setattr({c}, 'size', 179)\n",)
HEAD = """
class R:
    kept = {{}}
    table = {{"x": 101}}
    rate = 102
    size = 103

    {hook}

    def run(self):
        return [104, self.rate]

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def fold():
        return 105
"""
HOOKS = (
    "def __init_subclass__(cls):\n        R.kept[cls.__name__] = cls",
    "def __init_subclass__(cls, **x):\n        super().__init_subclass__(**x)\n        cls.kept[cls.__name__] = cls",
    "@classmethod\n    def __init_subclass__(cls):\n        cls.kept[cls.__name__] = cls",
    "def __init_subclass__(cls):\n        R.kept[cls.__name__] = cls()",
)
TAIL = """
def made(base):
    class Inner(base):
        def run(self):
            return super().run()
    return Inner


def matched(thing):
    match thing:
        case R(rate=rate):
            return rate


def root():
    return [{asked}]
"""
BODIES = {
    "rate": "rate = {n}",
    "size": "size: int = {n}",
    "run": "def run(self):\n    return [{n}, {inner}]",
    "make": "@classmethod\ndef make(cls):\n    return cls()",
    "fold": "@staticmethod\ndef fold():\n    return {n}",
    "table": 'table = {{"x": {n}}}',
}
INNER = (
    "0",
    "self.rate",
    "super().run()",
    "type(self).size",
    "self.table['x']",
    "getattr(self, 'si' + 'ze')",
    "R.rate",
)


def program(draw: random.Random) -> str:
    numbers, names = iter(range(110, 170)), ["R"]
    text = HEAD.format(hook=draw.choice(HOOKS))
    for name in ("A", "B", "C", "D", "E")[: draw.randint(2, 5)]:
        bases = draw.sample(names[1:], k=min(len(names) - 1, draw.randint(0, 2))) or ["R"]
        text += f"\n\nclass {name}({', '.join(sorted(bases, reverse=True))}):\n    note: int\n"
        for member in draw.sample(MEMBERS, k=draw.randint(0, 4)):
            body = BODIES[member].format(n=next(numbers), inner=draw.choice(INNER))
            text += textwrap.indent(body, "    ") + "\n"
        names.append(name)
    chosen = draw.choice(names[1:])
    patch = draw.choice(PATCHES).format(c=chosen)
    text += f"\n\nif 'rate' in vars({chosen}):\n    del {chosen}.rate\n" if patch == "del_" else f"\n\n{patch}"
    kinds = draw.sample(draw.choice([MILD, sorted(ASKED)]), k=draw.randint(1, 2))
    asked = [ASKED[kind].format(c=(c := draw.choice(names[1:])), name=c) for kind in kinds]
    return text + TAIL.format(asked=", ".join(asked))


def returned(folder, text):
    """What ``root`` returns; None where Python refuses the program."""
    grow(folder, a=text, b="from pkg.a import root\n")
    for name in [name for name in sys.modules if name.split(".")[0] == "pkg"]:
        del sys.modules[name]
    invalidate_caches()
    try:
        return repr(import_module("pkg.a").root())
    except (AttributeError, KeyError, TypeError):
        return None


@pytest.mark.parametrize("seed", range(40))
def test_a_number_that_a_program_of_classes_feels_changes_its_digest(seed, tmp_path, monkeypatch):
    folder = tmp_path / "pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = program(random.Random(seed))
    before = returned(folder, text)
    digest = digest_of(folder, "pkg.b:root").digest
    for found in NUMBER.finditer(text) if before is not None else ():
        edited = f"{text[: found.start()]}9{text[found.start() + 1 :]}"
        felt = returned(folder, edited) != before
        if digest_of(folder, "pkg.b:root").digest == digest:
            assert not felt, f"{found[0]} is felt\n{text}"
