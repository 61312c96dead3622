"""The code digest changes with what a stage's code can do, and with nothing else."""

import ast
import os
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.errors import VitopsError
from vitops.plan.code import CodeDigest, code_digest, vitops_package
from vitops.plan.definitions import Package
from vitops.store.stat_memo import StatMemo

FILES = {
    "__init__.py": "VERSION = '1'\n",
    "stage.py": '''
        """The root."""
        import importlib

        import numpy as np

        from pkg import tools
        from pkg.config.base import Train
        from pkg.models import build
        from pkg.layers.norm import Norm as Layer
        from .loop import fit as run_fit

        RATE = 0.1
        TABLE = {"a": "pkg.methods.first:First"}

        def stage(job: int) -> int:
            """Train."""
            from pkg.lazy import late

            Train.check(job)
            chosen = getattr(importlib.import_module(TABLE[job].partition(":")[0]), "First")
            return run_fit(build(job), Layer(), rate=RATE) + late() + tools.reached(np.float64(1)) + bool(chosen)

        def unrelated():
            return 1
        ''',
    "loop.py": """
        from pkg.arithmetic import *

        LIMIT: int = 3

        def fit(model, layer, *, rate, limit=LIMIT):
            return one_hop(rate)

        def other(x):
            return x
        """,
    "arithmetic.py": """
        from pkg import constants

        def one_hop(x):
            return two_hops(x)

        def two_hops(x):
            return x * constants.deep()

        def never(x):
            return x
        """,
    "constants.py": """
        FACTOR = 2

        def deep():
            return FACTOR

        UNUSED = 5
        """,
    "tools.py": """
        def reached(x):
            one_hop = 3  # a local name that a definition elsewhere has too
            return x + one_hop

        def unreached(x):
            return x
        """,
    "lazy.py": "def late():\n    return 0\n",
    "models/__init__.py": "from pkg.models.net import Net, build\n",
    "models/net.py": """
        import functools
        from pkg.layers.norm import Norm

        class Base:
            def forward(self, x):
                return x

        @functools.cache
        def size():
            return 4

        class Net(Base):
            width: int = 8

            def forward(self, x):
                return Norm()(x) * self.width

        def build(job):
            return Net(), size()
        """,
    "layers/__init__.py": "",
    "layers/norm.py": """
        class Norm:
            def __call__(self, x):
                return self._scale(x)

            def _scale(self, x):
                return x
        """,
    "methods/__init__.py": "",
    "methods/first.py": "class First:\n    pass\n",
    "config/__init__.py": "",
    "config/base.py": '''
        from typing import Annotated, ClassVar, Literal

        from pydantic import BaseModel, Field

        class Section(BaseModel):
            def parameters(self):
                return dict(self)

        class One(Section):
            kind: Literal["one"] = "one"

        Model = Annotated[One, Field(discriminator="kind")]

        class Train(Section):
            """One training."""

            implementation: ClassVar[str] = "pkg.stage:stage"
            model: Model
            epochs: int = 3

            @classmethod
            def check(cls, value):
                return value
        ''',
}
ROOTS = ("pkg.stage:stage",)


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pkg"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def digest_of(folder: Path, *roots: str) -> CodeDigest:
    return code_digest(roots or ROOTS, package=Package(folder))


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert text.count(old) >= 1, old
    (folder / name).write_text(text.replace(old, new))


def changed(before: CodeDigest, after: CodeDigest) -> set[str]:
    names = {*before.definitions, *after.definitions}
    return {name for name in names if before.definitions.get(name) != after.definitions.get(name)}


def test_reaches_through_aliases_reexports_stars_and_nested_imports_and_no_further(package):
    assert set(digest_of(package).definitions) == {
        "pkg.stage.stage",
        "pkg.stage.RATE",
        "pkg.loop.fit",
        "pkg.loop.LIMIT",
        "pkg.arithmetic.one_hop",
        "pkg.arithmetic.two_hops",
        "pkg.constants.deep",
        "pkg.constants.FACTOR",
        "pkg.tools.reached",
        "pkg.lazy.late",
        "pkg.models.net.Base",
        "pkg.models.net.Net",
        "pkg.models.net.build",
        "pkg.models.net.size",
        "pkg.layers.norm.Norm",
        "pkg.config.base.Section",
        "pkg.config.base.Train",
    }


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("arithmetic.py", "return two_hops(x)", "# so be it\n    return (two_hops(\n        x))"),
        ("arithmetic.py", "def two_hops(x):", 'def two_hops(x):\n    """Twice."""'),
        ("arithmetic.py", "def two_hops(x):", "def two_hops(x: float) -> float:"),
        ("loop.py", "LIMIT: int = 3", "LIMIT = 3"),
        ("models/net.py", "return Net(), size()", "x: tuple\n    return Net(), size()"),
        ("models/net.py", "class Net(Base):", 'class Net(Base):\n    "A network."\n'),
        ("stage.py", "return 1", "return 2"),
        ("arithmetic.py", "def never(x):\n    return x", "def never(x):\n    return x + 1"),
        ("constants.py", "UNUSED = 5", "UNUSED = 6"),
        ("tools.py", "def unreached(x):\n    return x", "def unreached(x):\n    return -x"),
        ("stage.py", '"a": "pkg.methods.first:First"', '"a": "pkg.methods.first:First", "b": "pkg.methods.second:B"'),
        ("config/base.py", "epochs: int = 3", "epochs: int = 3\n    later: float = 0.0"),
        ("config/base.py", "epochs: int = 3", "epochs: float = 4"),
        ("config/base.py", "Model = Annotated[One,", "class Two(One):\n    pass\n\nModel = Annotated[One | Two,"),
        ("__init__.py", "'1'", "'2'"),
    ],
)
def test_edits_that_change_no_behaviour_of_the_stage_change_nothing(package, name, old, new):
    before = digest_of(package)
    edit(package, name, old, new)
    assert digest_of(package) == before


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        ("constants.py", "return FACTOR", "return FACTOR + 1", "pkg.constants.deep"),
        ("constants.py", "FACTOR = 2", "FACTOR = 3", "pkg.constants.FACTOR"),
        ("constants.py", "FACTOR = 2", "FACTOR = 2\nFACTOR += 1", "pkg.constants.FACTOR"),
        ("loop.py", "limit=LIMIT", "limit=4", "pkg.loop.fit"),
        ("loop.py", "LIMIT: int = 3", "LIMIT: int = 4", "pkg.loop.LIMIT"),
        ("models/net.py", "class Net(Base):", "class Net(object, Base):", "pkg.models.net.Net"),
        ("models/net.py", "@functools.cache", "@functools.lru_cache(1)", "pkg.models.net.size"),
        ("models/net.py", "x):\n        return x", "x):\n        return -x", "pkg.models.net.Base"),
        ("models/net.py", "width: int = 8", "width: int = 9", "pkg.models.net.Net"),
        ("models/net.py", "width: int = 8", "width: float = 8", "pkg.models.net.Net"),
        ("layers/norm.py", "x):\n        return x", "x):\n        return 2 * x", "pkg.layers.norm.Norm"),
        ("config/base.py", "return value", "return value or 1", "pkg.config.base.Train"),
        ("config/base.py", "return dict(self)", "return {}", "pkg.config.base.Section"),
        ("stage.py", "import numpy as np", "import math as np", "pkg.stage.stage"),
        ("lazy.py", "return 0", "return 1", "pkg.lazy.late"),
    ],
)
def test_edits_of_reached_code_change_the_digest_and_are_named(package, name, old, new, named):
    before = digest_of(package)
    edit(package, name, old, new)
    after = digest_of(package)
    assert after.digest != before.digest
    assert named in changed(before, after)


def test_the_same_name_taken_from_another_module_is_a_change(package):
    (package / "tools2.py").write_text((package / "tools.py").read_text())
    before = digest_of(package, "pkg.stage:stage", "pkg.tools2:reached", "pkg.tools:reached")
    edit(package, "stage.py", "from pkg import tools", "from pkg import tools2 as tools")
    after = digest_of(package, "pkg.stage:stage", "pkg.tools2:reached", "pkg.tools:reached")
    assert changed(before, after) == {"pkg.stage.stage"}


def test_a_new_method_file_changes_nothing(package):
    before = digest_of(package)
    (package / "methods/second.py").write_text("class Second:\n    pass\n")
    assert digest_of(package) == before


def test_an_implementation_counts_when_it_is_a_root(package):
    with_method = digest_of(package, *ROOTS, "pkg.methods.first:First")
    edit(package, "methods/first.py", "pass", "rate = 1")
    assert changed(with_method, digest_of(package, *ROOTS, "pkg.methods.first:First")) == {"pkg.methods.first.First"}


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


@pytest.mark.parametrize("use", ["sys.modules['ray'].init()", "'ray' in sys.modules"])
def test_looking_at_a_foreign_module_by_name_counts_nothing_more(package, use):
    edit(package, "stage.py", "tools.reached(np.float64(1))", use)
    assert "pkg.stage.unrelated" not in digest_of(package).definitions


def test_importing_a_module_by_a_literal_name_counts_it_whole(package):
    edit(package, "stage.py", 'TABLE[job].partition(":")[0]', '"pkg.tools"')
    assert "pkg.tools.unreached" in digest_of(package).definitions


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


@pytest.mark.parametrize("root", ["pkg.nowhere:f", "pkg.stage:nothing", "elsewhere:f"])
def test_a_root_that_does_not_exist_is_an_error_that_names_it(package, root):
    with pytest.raises(VitopsError, match=root):
        digest_of(package, root)


def test_a_file_that_does_not_parse_is_named_with_its_line(package):
    edit(package, "constants.py", "FACTOR = 2", "FACTOR = (")
    with pytest.raises(VitopsError, match=r"constants\.py:\d+"):
        digest_of(package)


NEUTRAL = [
    lambda text: "# a comment\n" + text,
    lambda text: text.replace("\n", "\n\n"),
    lambda text: ast.unparse(ast.parse(text)) + "\n",
    lambda text: text.replace(":\n", ":\n    'A sentence.'\n"),
    lambda text: text.replace("(x)", "(x: int) -> int", 1) if "(x):" in text else text,
]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(2, 7))
def test_a_digest_changes_exactly_when_a_reachable_definition_does(data, count, tmp_path_factory):
    """For any graph of functions spread over files: reached = reachable; only edits of reached ones count."""
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1))
    edges = data.draw(st.sets(pairs, max_size=2 * count))
    home = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    bodies = [0] * count
    folder = tmp_path_factory.mktemp("graph") / "pkg"
    _write_graph(folder, edges, home, bodies, neutral=None)
    root = f"pkg.m{home[0]}:f0"
    before = digest_of(folder, root)
    reachable = _reachable(edges)
    assert set(before.definitions) == {f"pkg.m{home[node]}.f{node}" for node in reachable}
    touched = data.draw(st.sets(st.integers(0, count - 1)))
    for node in touched:
        bodies[node] += 1
    _write_graph(folder, edges, home, bodies, neutral=data.draw(st.sampled_from(NEUTRAL)))
    after = digest_of(folder, root)
    assert changed(before, after) == {f"pkg.m{home[node]}.f{node}" for node in touched & reachable}
    assert (after.digest != before.digest) == bool(touched & reachable)


def _write_graph(folder, edges, home, bodies, *, neutral):
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").write_text("")
    for module in range(3):
        lines = [f"from pkg.m{home[node]} import f{node}" for node in range(len(home)) if home[node] != module]
        for node, body in enumerate(bodies):
            if home[node] == module:
                calls = "".join(f" + f{target}(x)" for source, target in sorted(edges) if source == node)
                lines.append(f"def f{node}(x):\n    return {body}{calls}")
        text = "\n".join(lines) + "\n"
        (folder / f"m{module}.py").write_text(neutral(text) if neutral else text)


def _reachable(edges):
    found, waiting = set(), [0]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [target for source, target in edges if source == node]
    return found


def test_a_memo_gives_the_same_digest_and_notices_edits(package, tmp_path):
    fresh = digest_of(package)
    time.sleep(0.05)  # older than the memo's clock tick
    for _ in range(2):
        memo = StatMemo(tmp_path / "memo")
        assert code_digest(ROOTS, package=Package(package, memo)) == fresh
        memo.save()
    edit(package, "constants.py", "FACTOR = 2", "FACTOR = 3")
    os.utime(package / "constants.py", ns=(1, 1))
    assert code_digest(ROOTS, package=Package(package, StatMemo(tmp_path / "memo"))) != fresh


def test_all_of_vitops_parses_fast_and_warm_at_once(tmp_path):
    memo = StatMemo(tmp_path / "memo")
    modules = [
        ".".join(("vitops", *path.relative_to(vitops_package().folder).with_suffix("").parts))
        for path in vitops_package().folder.rglob("*.py")
        if path.name != "__init__.py"
    ]
    started = time.process_time()
    cold = code_digest(modules, memo)
    assert time.process_time() - started < 3
    memo.save()
    started = time.process_time()
    assert code_digest(modules, StatMemo(tmp_path / "memo")) == cold
    assert time.process_time() - started < 0.5
