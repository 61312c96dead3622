"""A name, or what is used instead of one, is followed to all it may mean, and no further."""

import textwrap

import pytest
from digests import changed, digest_of, edit, grow


@pytest.mark.parametrize("use", ["getattr(tools, 'unreached')", "tools", "vars(tools)"])
def test_a_module_used_as_a_value_counts_whole(package, use):
    edit(package, "stage.py", "tools.reached(np.float64(1))", use)
    assert "pkg.tools.unreached" in digest_of(package).definitions


@pytest.mark.parametrize(
    "use", ["globals()['unrelated']", "sys.modules[__name__].unrelated", "sys.modules.get(job)", "vars()['x']"]
)
def test_looking_into_the_own_module_by_name_counts_it_whole(package, use):
    edit(package, "stage.py", "tools.reached(np.float64(1))", use)
    assert "pkg.stage.unrelated" in digest_of(package).definitions


def test_looking_into_the_own_module_by_the_beginning_of_a_name_counts_what_begins_so(package):
    edit(package, "stage.py", "tools.reached(np.float64(1))", "globals()[f'un{job}']")
    before = digest_of(package)
    assert "pkg.stage.unrelated" in before.definitions and "pkg.stage.TABLE" not in before.definitions
    edit(package, "stage.py", "return 1", "return 2")
    assert changed(before, digest_of(package)) == {"pkg.stage.unrelated"}
    edit(package, "stage.py", "def unrelated", "def unknown():\n    return 2\n\ndef unrelated")
    assert "pkg.stage.unknown" in digest_of(package).definitions


@pytest.mark.parametrize("use", ["sys.modules['ray'].init()", "'ray' in sys.modules"])
def test_looking_at_a_foreign_module_by_name_counts_nothing_more(package, use):
    edit(package, "stage.py", "tools.reached(np.float64(1))", use)
    assert "pkg.stage.unrelated" not in digest_of(package).definitions


def test_importing_a_module_by_a_literal_name_counts_it_whole(package):
    edit(package, "stage.py", 'TABLE[job].partition(":")[0]', '"pkg.tools"')
    assert "pkg.tools.unreached" in digest_of(package).definitions


def test_what_a_class_body_imports_counts(package):
    edit(package, "models/net.py", "width: int = 8", "from pkg.tools import unreached as scale\n    width: int = 8")
    assert "pkg.tools.unreached" in digest_of(package).definitions


def test_both_origins_of_a_name_count(package):
    either = "try:\n    from pkg.tools import unreached as RATE\nexcept ImportError:\n    RATE = 1"
    edit(package, "stage.py", "RATE = 0.1", either)
    found = digest_of(package).definitions
    assert {"pkg.tools.unreached", "pkg.stage.<module>"} <= set(found)


def test_locals_and_arguments_hide_definitions_but_closures_do_not(package):
    (package / "scopes.py").write_text(
        textwrap.dedent(
            """
            def a(): return 1
            def b(): return 2
            def c(): return 3
            def d(): return 4
            def e(): return 5
            def root(a, *, k=b):
                c = 1
                def inner():
                    global d
                    d = 2
                    return c
                return [e for e in (a, c)], lambda e: e
            def comprehension():
                return [b for a in e()], e
            """
        )
    )
    assert set(digest_of(package, "pkg.scopes:root").definitions) == {
        f"pkg.scopes.{name}" for name in ("root", "b", "d")
    }
    assert set(digest_of(package, "pkg.scopes:comprehension").definitions) == {
        f"pkg.scopes.{name}" for name in ("comprehension", "b", "e")
    }


def test_a_package_is_asked_for_its_submodule_before_that_is_imported(package):
    (package / "c").mkdir()
    (package / "c/deep.py").write_text("def value():\n    return 0\n")
    (package / "c/__init__.py").write_text("def __getattr__(name):\n    raise AttributeError(1)\n")
    grow(package, b="from pkg.c import deep\n\ndef root():\n    return deep.value()\n")
    before = digest_of(package, "pkg.b:root")
    edit(package, "c/__init__.py", "1", "2")
    assert changed(before, digest_of(package, "pkg.b:root")) == {"pkg.c.__getattr__"}
