"""Two functions have one normal form only if they do the same."""

import ast
import textwrap

import pytest

from vitops.plan.code.normal_form import normal_form


def form(source: str) -> str:
    return normal_form(ast.parse(textwrap.dedent(source)).body[0])


BODY = "def f(a, b):\n    x = a\n    y = b\n    return x - y\n"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (BODY, BODY.replace("x", "first").replace("y", "second"), True),
        (BODY, BODY.replace("x", "z").replace("y", "x").replace("z", "y"), True),
        (BODY, BODY.replace("x - y", "y - x"), False),
        (BODY, BODY.replace("a, b", "a, c").replace("y = b", "y = c"), False),
        ("def f():\n    x = 1\n    return locals()", "def f():\n    y = 1\n    return locals()", False),
        ("def f():\n    global x\n    x = 1", "def f():\n    global y\n    y = 1", False),
        ("def f():\n    x = 1\n    return f'{x=}'", "def f():\n    y = 1\n    return f'{y=}'", False),
        ("def f():\n    x = 1\n    return g(x=x)", "def f():\n    y = 1\n    return g(y=y)", False),
        (
            "def f():\n    x = 1\n    return [x for x in g(x)]",
            "def f():\n    y = 1\n    return [x for x in g(x)]",
            False,
        ),
        ("def f():\n    x = 1\n    return lambda x: x", "def f():\n    y = 1\n    return lambda x: x", False),
        ("def f():\n    x = 1\n    return lambda: x", "def f():\n    y = 1\n    return lambda: x", False),
        ("def f():\n    x = 1\n    return x", "def f():\n    y = 1\n    return x", False),
    ],
)
def test_the_name_of_a_local_does_not_count_but_what_it_is_used_for_does(one, other, equal):
    assert (form(one) == form(other)) == equal
