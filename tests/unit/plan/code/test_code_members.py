"""Of a class counts what a lookup can find; where anything may look further, all of it."""

import pytest
from digests import changed, digest_of, edit, grow

FAMILY = """
    LIMIT = 1

    class Base:
        rate = 10
        size: int = 11

        def run(self):
            return [12, self.rate]

        @staticmethod
        def fold():
            return 13

        @classmethod
        def make(cls):
            return cls()

    class Low(Base):
        rate = 20

        def run(self, x=LIMIT):
            return 21

    class High(Base):
        rate = 30

        def _hidden(self):
            return 31
"""
HOOKED = """
    class Base:
        known = {}
        rate = 10

        def __init_subclass__(cls, **rest):
            super().__init_subclass__(**rest)
            Base.known[cls.__name__] = cls

    class Finder(Base):
        def find(self, name):
            return self.known[name]

    class Low(Base):
        rate = 20

    class High(Base):
        rate = 30
"""


def counts(package, text, use, number, *, before=""):
    """Whether another value for ``number`` in module a changes the digest of what uses it."""
    grow(package, a=text, b=f"import inspect\nfrom pkg import a\n{before}\n\ndef root(x):\n    return {use}\n")
    digest = digest_of(package, "pkg.b:root")
    edit(package, "a.py", number, f"9{number}")
    return digest_of(package, "pkg.b:root") != digest


@pytest.mark.parametrize(
    ("use", "number", "expected"),
    [
        ("a.Low()", "20", True),
        ("a.Low()", "21", True),
        ("a.Low()", "10", False),
        ("a.Low()", "11", True),
        ("a.Low()", "12", False),
        ("a.Low()", "30", False),
        ("a.High()", "10", False),
        ("a.High()", "12", True),
        ("a.Base()", "10", True),
        ("a.Base()", "20", False),
        ("a.Low.rate", "20", True),
        ("a.Low.rate", "21", False),
        ("a.Low.size", "11", True),
        ("a.Low.size", "20", False),
        ("a.Low.fold()", "13", True),
        ("a.Low.fold()", "20", False),
        ("a.Low.make()", "20", True),
        ("a.Low.make", "21", True),
        ("a.Low.__name__", "20", True),
        ("a.Low.missing", "20", True),
        ("isinstance(x, a.Low)", "20", True),
        ("a.High._hidden(x)", "31", True),
    ],
)
def test_a_member_counts_where_a_lookup_may_find_it_first(package, use, number, expected):
    assert counts(package, FAMILY, use, number) == expected


@pytest.mark.parametrize(("use", "expected"), [("a.Low", {"pkg.a.LIMIT"}), ("a.Low.rate", set())])
def test_what_a_member_uses_counts_with_it(package, use, expected):
    grow(package, a=FAMILY, b=f"from pkg import a\n\ndef root():\n    return {use}\n")
    before = digest_of(package, "pkg.b:root")
    edit(package, "a.py", "LIMIT = 1", "LIMIT = 2")
    assert changed(before, digest_of(package, "pkg.b:root")) == expected


@pytest.mark.parametrize(
    "use",
    [
        "super(a.Low, x).rate",
        "a.Low.__mro__",
        "type(x).__mro__[1].rate + a.Low.rate",
        "[vars(kind) for kind in a.Low.mro()]",
        "inspect.getmro(a.Low)",
        "getattr(a.Low, '__bases__')",
        "getattr(a.Low, x)",
        "[getattr(x, name) for name in dir(a.Low)]",
        "a.Low.__base__.__dict__",
        "eval(x)(a.Low)",
        "x.format(a.Low)",
        "'{0.__class__.__base__.rate}'.format(a.Low())",
        "type('Other', (a.Low, a.High), {})",
        "(lambda look: look(a.Low))(vars)",
        "x.__setattr__('__class__', a.Low)",
    ],
)
def test_whatever_may_look_behind_attributes_makes_classes_count_whole(package, use):
    assert counts(package, FAMILY, use, "10")


@pytest.mark.parametrize(
    "statement",
    [
        "del a.Low.rate",
        "a.Base = a.High\nLOW = a.Low",
        "setattr(a, 'Low', a.Low)",
        "from inspect import getmro as order\nORDER = [order(a.Low)]\nORDER.append(order)",
        "from abc import ABC\nclass Two(a.Low, ABC):\n    pass\nTWO = []\nTWO.append(Two)",
        "def made():\n    class Two(a.Low, a.High):\n        pass\n    return Two\nTWO = []\nTWO.append(made())",
        "from dataclasses import dataclass\n@dataclass\nclass Two(a.Low):\n    pass\nTWO = []\nTWO.append(Two)",
    ],
)
def test_statements_that_may_uncover_what_was_hidden_make_it_count(package, statement):
    assert counts(package, FAMILY, "a.Low()", "10", before=statement)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return 21", "return 21, super().run()"),
        ("return 21", "return 21, self.__class__.__mro__"),
        ("return 21", "return 21, getattr(self, f'ra{x}')"),
        ("return 21", "return 21, vars(type(self))"),
        ("return 21", "return 21, __class__"),
        ("rate = 20", "rate = 20\n        __slots__ = ()"),
        ("rate = 20", "rate = 20 if LIMIT else 0"),
        ("rate = 20", "rate = 20\n        half = rate / 2"),
        ("rate = 20", "rate = property(str)"),
        ("class Low(Base)", "class Low(Base, metaclass=type)"),
        ("class Low(Base)", "from functools import total_ordering as t\n\n    @t\n    class Low(Base)"),
        ("class Base:", "from collections import UserDict\n\n    class Base(UserDict):"),
        ("class Base:", "class Base(Exception):"),
        ("class Low(Base)", "Other = Base\n    class Low(Other)"),
        ("class Low(Base)", "from os import *\n\n    class Low(Base)"),
    ],
)
def test_a_class_that_does_more_than_hold_members_counts_whole(package, old, new):
    assert counts(package, FAMILY.replace(old, new), "a.Low()", "10")


def test_the_names_of_members_and_their_order_count(package):
    grow(package, a=FAMILY, b="from pkg import a\n\ndef root():\n    return a.High()\n")
    before = digest_of(package, "pkg.b:root")
    edit(package, "a.py", "rate = 30", "pace = 30")
    assert "pkg.a.High" in changed(before, digest_of(package, "pkg.b:root"))


def test_private_names_hide_only_their_own(package):
    text = "class Base:\n    __x = 10\n    def run(self):\n        return self.__x\n\nclass Low(Base):\n    __x = 20\n"
    assert counts(package, text, "a.Low().run()", "10")


def test_of_a_diamond_counts_what_the_order_of_python_shows_first(package):
    text = "class A:\n    x = 10\nclass B(A):\n    pass\nclass C(A):\n    x = 30\nclass D(B, C):\n    pass\n"
    assert counts(package, text, "a.D.x", "30")
    assert not counts(package, text, "a.D.x", "10")


@pytest.mark.parametrize(
    ("use", "number", "expected"),
    [
        ("a.Base.known['Low']", "20", True),
        ("a.Base.known['Low']", "30", False),
        ("a.Base.known['Low']", "10", False),
        ("x.known['Low']", "20", True),
        ("x.known['Low']", "30", False),
        ("a.Base.known[x]", "30", True),
        ("a.Base.known.get('Low')", "30", True),
        ("[*a.Base.known]", "30", True),
        ("(lambda known: known['Low'])(a.Base.known)", "30", True),
        ("getattr(a.Base, 'known')", "30", True),
        ("getattr(a.Base, x)", "30", True),
        ("vars(a.Base)['known']['Low']", "30", True),
        ("a.Finder().find('High')", "30", True),
        ("a.Base.rate", "30", False),
    ],
)
def test_a_registered_class_counts_where_its_name_is_asked_for(package, use, number, expected):
    assert counts(package, HOOKED, use, number) == expected


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Base.known[cls.__name__] = cls", "Base.known[cls.__name__] = cls()"),
        ("Base.known[cls.__name__] = cls", "Base.known[cls.rate] = cls"),
        ("Base.known[cls.__name__] = cls", "Base.known[cls.__name__] = LAST = cls"),
        ("Base.known[cls.__name__] = cls", "Base.known[cls.__name__] = cls\n        LAST.append(cls)"),
        ("known = {}", "known = Keeper()"),
        ("known = {}", "known = dict()"),
        ("known = {}", "known = []"),
    ],
)
def test_a_hook_that_does_anything_else_is_told_of_the_whole_class(package, old, new):
    text = f"LAST = []\nclass Keeper(dict):\n    pass\n{HOOKED.replace(chr(10) + '    ', chr(10))}".replace(old, new)
    assert counts(package, text, "a.Base.known['Low']", "30")


def test_a_registry_that_is_replaced_from_outside_opens_it(package):
    assert counts(package, HOOKED, "a.Base.known['Low']", "30", before="a.Base.known = type(a)")
