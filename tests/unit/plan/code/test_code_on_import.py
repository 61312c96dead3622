"""What runs when a reached module is imported counts, in its order."""

import pytest
from digests import changed, digest_of, edit, grow


def test_statements_that_run_when_a_reached_module_is_imported_count(package):
    edit(package, "arithmetic.py", "def never", "constants.deep.scale = 2\n\ndef never")
    before = digest_of(package)
    assert "pkg.arithmetic.<module>" in before.definitions
    edit(package, "arithmetic.py", "scale = 2", "scale = 3")
    assert changed(before, digest_of(package)) == {"pkg.arithmetic.<module>"}


def test_a_function_that_registers_itself_in_a_reached_module_counts(package):
    decorated = "from timm.models import register_model\n\n@register_model\ndef tiny():\n    return 1"
    edit(package, "constants.py", "UNUSED = 5", decorated)
    before = digest_of(package)
    edit(package, "constants.py", "return 1", "return 2")
    assert changed(before, digest_of(package)) == {"pkg.constants.tiny"}


def test_code_for_type_checkers_and_for_scripts_does_not_count(package):
    before = digest_of(package)
    checked = "import typing\nif typing.TYPE_CHECKING:\n    from pkg import tools\nLIMIT: int = 3"
    edit(package, "loop.py", "LIMIT: int = 3", checked)
    with (package / "tools.py").open("a") as stream:
        stream.write("\nif __name__ == '__main__':\n    reached(1)\n")
    assert digest_of(package) == before


@pytest.mark.parametrize("test", ["__name__ != '__main__'", "FLAGS.TYPE_CHECKING", "__name__ in ('pkg.loop',)"])
def test_other_conditions_may_hold_and_count(package, test):
    before = digest_of(package)
    edit(package, "loop.py", "LIMIT: int = 3", f"LIMIT: int = 3\nif {test}:\n    LIMIT = 4")
    assert digest_of(package) != before


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("RATE = 1\nTABLE = [RATE]\nRATE = 2\n", "RATE = 1\nRATE = 2\nTABLE = [RATE]\n"),
        ("A = {}\nTABLE = dict(A)\nA['x'] = 1\n", "A = {}\nA['x'] = 1\nTABLE = dict(A)\n"),
        (
            "A = []\nA.append(1)\ndef TABLE(x=len(A)): return x\n",
            "A = []\ndef TABLE(x=len(A)): return x\nA.append(1)\n",
        ),
    ],
)
def test_the_order_of_statements_counts_where_it_can_be_felt(package, first, second):
    grow(package, a=first, b="from pkg.a import TABLE\n\ndef root():\n    return TABLE\n")
    before = digest_of(package, "pkg.b:root")
    grow(package, a=second)
    assert digest_of(package, "pkg.b:root").digest != before.digest


def test_the_order_of_definitions_does_not_count(package):
    texts = ["A = 1\n", "B = 2\n", "def f():\n    return A\n", "class C:\n    x = A + B\n"]
    root = "from pkg.a import f, C\n\ndef root():\n    return f, C\n"
    grow(package, a="".join(texts), b=root)
    before = digest_of(package, "pkg.b:root")
    grow(package, a="".join([texts[1], texts[0], texts[3], texts[2]]))
    assert digest_of(package, "pkg.b:root") == before
