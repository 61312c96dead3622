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
from vitops.plan.normal_form import normal_form
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


def test_all_of_vitops_is_parsed_once(tmp_path, monkeypatch):
    memo = StatMemo(tmp_path / "memo")
    modules = [
        ".".join(("vitops", *path.relative_to(vitops_package().folder).with_suffix("").parts))
        for path in vitops_package().folder.rglob("*.py")
        if path.name != "__init__.py"
    ]
    cold = code_digest(modules, memo)
    memo.save()
    parsed, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda source, **mode: parsed.append(len(source)) or parse(source, **mode))
    assert code_digest(modules, StatMemo(tmp_path / "memo")) == cold
    assert sum(parsed) < 10_000, "annotations in quotes at most"


def grow(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


HIDDEN = {
    "a subclass that its base takes note of": (
        "class Base:\n    known = {}\n    def __init_subclass__(cls):\n        Base.known[cls.__name__] = cls\n",
        "from pkg.a import Base\nimport pkg.c\n\ndef root():\n    return Base.known['One']().run()\n",
        "from pkg.a import Base\n\nclass One(Base):\n    def run(self):\n        return 1\n",
    ),
    "a subclass of a subclass, found by a metaclass": (
        "class Meta(type):\n    pass\nclass Base(metaclass=Meta):\n    pass\nclass Middle(Base):\n    pass\n",
        "import pkg.a\nimport pkg.c\n\ndef root():\n    return pkg.a.Base\n",
        "import pkg.a\n\nclass One(pkg.a.Middle):\n    scale = 1\n",
    ),
    "a call within an assignment": (
        "TABLE = {}\n\ndef note(name, value):\n    TABLE[name] = value\n",
        "from pkg.a import TABLE\nimport pkg.c\n\ndef root():\n    return TABLE['x']\n",
        "from pkg.a import note\n\n_ = note('x', 1)\n",
    ),
    "a call in a class body": (
        "TABLE = {}\n\ndef note(name, value):\n    TABLE[name] = value\n",
        "from pkg.a import TABLE\nimport pkg.c\n\ndef root():\n    return TABLE['x']\n",
        "from pkg import a\n\nclass Quiet:\n    handle = a.note('x', 1)\n",
    ),
    "a decorated method": (
        "TABLE = []\n\ndef note(method):\n    TABLE.append(method)\n    return method\n",
        "from pkg.a import TABLE\nimport pkg.c\n\ndef root():\n    return TABLE[0](None)\n",
        "from pkg import a\n\nclass Quiet:\n    @a.note\n    def run(self):\n        return 1\n",
    ),
    "a default argument": (
        "TABLE = {}\n",
        "from pkg.a import TABLE\nimport pkg.c\n\ndef root():\n    return TABLE['x']\n",
        "from pkg.a import TABLE\n\ndef quiet(x=TABLE.setdefault('x', 1)):\n    pass\n",
    ),
    "setattr within an assignment": (
        "RATE = 0\n",
        "from pkg import a\nimport pkg.c\n\ndef root():\n    return a.RATE\n",
        "from pkg import a\n\n_ = setattr(a, 'RATE', 1)\n",
    ),
    "an import in the package's own file": (
        "def helper():\n    return 0\n",
        "import pkg\nfrom pkg import a\n\ndef root():\n    return a.helper()\n",
        "def quiet():\n    return 1\n",
    ),
    "a name walrus-bound": (
        "FIRST = (second := 1)\n",
        "from pkg.c import second\n\ndef root():\n    return second\n",
        "OTHER = (second := 1)\n",
    ),
    "a star after a definition": (
        "RATE = 0\n",
        "from pkg.a import RATE\nfrom pkg.c import *\n\ndef root():\n    return RATE\n",
        "RATE = 1\n",
    ),
    "an attribute that no source shows": (
        "def _later():\n    pass\n",
        "from pkg import c\n\ndef root():\n    return c.__dict__['hidden']\n",
        "hidden = 1\n",
    ),
    "a name that the module gets from itself": (
        "",
        "from pkg import c\n\ndef root():\n    return c.made\n",
        "for name in ('made',):\n    globals()[name] = 1\n",
    ),
    "an import inside a class": (
        "",
        "class Holder:\n    import pkg.c as held\n\ndef root():\n    return Holder.held.value()\n",
        "def value():\n    return 1\n",
    ),
    "a quoted annotation of a field": (
        "",
        "import dataclasses\nfrom pkg.c import Other\n\n@dataclasses.dataclass\nclass Holder:\n    x: 'Other'\n"
        "\ndef root():\n    return Holder(0)\n",
        "class Other:\n    scale = 1\n",
    ),
    "code for a module name that is not main": (
        "TABLE = []\n",
        "from pkg.a import TABLE\nimport pkg.c\n\ndef root():\n    return TABLE\n",
        "from pkg.a import TABLE\n\nif __name__ != '__main__':\n    TABLE.append(1)\n",
    ),
    "an operator that torch calls by its name": (
        "",
        "import pkg.c\n\ndef root():\n    return 1\n",
        "import torch\n\n@torch.library.custom_op('pkg::x', mutates_args=())\ndef one():\n    return 1\n",
    ),
    "a subclass that another definition asks for": (
        "class Base:\n    pass\n",
        "from pkg.a import Base\nimport pkg.c\n\ndef root():\n    return Base.__subclasses__()[0]()\n",
        "from pkg.a import Base\n\nclass One(Base):\n    scale = 1\n",
    ),
    "a hook that is assigned": (
        "KNOWN = []\nclass Base:\n    __init_subclass__ = classmethod(KNOWN.append)\n",
        "from pkg.a import KNOWN\nimport pkg.c\n\ndef root():\n    return KNOWN\n",
        "from pkg.a import Base\n\nclass One(Base):\n    scale = 1\n",
    ),
    "a subclass that another distribution may keep": (
        "",
        "from keeper import find\nimport pkg.c\n\ndef root():\n    return find('One')\n",
        "import keeper\n\nclass One(keeper.Base):\n    scale = 1\n",
    ),
    "a function that a builtin calls": (
        "KNOWN = []\ndef note(x):\n    KNOWN.append(x)\n",
        "from pkg.a import KNOWN\nimport pkg.c\n\ndef root():\n    return KNOWN\n",
        "from pkg.a import note\n\n_ = list(map(note, [1]))\n",
    ),
    "an assignment that changes another distribution": (
        "",
        "import torch\nimport pkg.c\n\ndef root():\n    return torch.rand(1)\n",
        "import torch\n\n_ = torch.manual_seed(1)\n",
    ),
    "an operator by its name, imported": (
        "",
        "import pkg.c\n\ndef root():\n    return 1\n",
        "from torch.library import custom_op\n\n@custom_op('pkg::x', mutates_args=())\ndef one():\n    return 1\n",
    ),
    "a tree node that torch keeps": (
        "",
        "import pkg.c\n\ndef root():\n    return 1\n",
        "from torch.utils import _pytree as tree\n\n@tree.register_class\nclass One:\n    scale = 1\n",
    ),
    "a method that another distribution may keep": (
        "",
        "import keeper\nimport pkg.c\n\ndef root():\n    return keeper.call()\n",
        "import keeper\n\nclass Quiet:\n    @keeper.keep('x')\n    def one(self):\n        return 1\n",
    ),
    "a definition resolved by its literal name": (
        "",
        "import pkgutil\n\ndef root():\n    return pkgutil.resolve_name('pkg.c:value')()\n",
        "def value():\n    return 1\n",
    ),
    "a name in a text that is evaluated": (
        "",
        "from pkg.c import run\n\ndef root():\n    return run()\n",
        "def run():\n    return eval('helper()')\n\ndef helper():\n    return 1\n",
    ),
    "a name in the globals of a function": (
        "",
        "from pkg.c import run\n\ndef root():\n    return run()\n",
        "def run():\n    return run.__globals__['helper']()\n\ndef helper():\n    return 1\n",
    ),
    "a handler chosen by an annotation": (
        "import functools\n\n@functools.singledispatch\ndef run(x):\n    return 0\n",
        "from pkg.a import run\nimport pkg.c\n\ndef root():\n    return run(True)\n",
        "from pkg.a import run\n\n@run.register\ndef _(x: list[1]):\n    return 5\n",
    ),
}


@pytest.mark.parametrize("where", HIDDEN)
def test_code_that_no_name_leads_to_counts_where_it_can_be_felt(package, where):
    first, second, third = HIDDEN[where]
    grow(package, a=first, b=second, c=third)
    if "own file" in where:
        (package / "__init__.py").write_text("from pkg import c\nfrom pkg import a\n\na.helper = c.quiet\n")
    before = digest_of(package, "pkg.b:root")
    grow(package, c=third.replace("1", "2"))
    after = digest_of(package, "pkg.b:root")
    assert after.digest != before.digest
    assert any(name.startswith("pkg.c.") for name in changed(before, after))


def test_a_package_is_asked_for_its_submodule_before_that_is_imported(package):
    (package / "c").mkdir()
    (package / "c/deep.py").write_text("def value():\n    return 0\n")
    (package / "c/__init__.py").write_text("def __getattr__(name):\n    raise AttributeError(1)\n")
    grow(package, b="from pkg.c import deep\n\ndef root():\n    return deep.value()\n")
    before = digest_of(package, "pkg.b:root")
    edit(package, "c/__init__.py", "1", "2")
    assert changed(before, digest_of(package, "pkg.b:root")) == {"pkg.c.__getattr__"}


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


def test_vitops_holds_nothing_but_python():
    """A file that code reads from beside itself would be in no digest."""
    folder = vitops_package().folder
    others = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert others == []


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
