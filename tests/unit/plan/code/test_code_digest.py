"""The code digest changes with what a stage's code can do, and with nothing else."""

import ast
import os
import time

import pytest
from digests import ROOTS, changed, digest_of, edit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.errors import VitopsError
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.store.stat_memo import StatMemo


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
        "pkg.models.net.Net::forward",
        "pkg.models.net.Net::width",
        "pkg.models.net.build",
        "pkg.models.net.size",
        "pkg.layers.norm.Norm",
        "pkg.layers.norm.Norm::__call__",
        "pkg.layers.norm.Norm::_scale",
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
        ("models/net.py", "x):\n        return x", "x):\n        return -x"),  # of Base, where Net has its own
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
        ("models/net.py", "Norm()(x) * self", "Norm()(x) + self", "pkg.models.net.Net::forward"),
        (
            "models/net.py",
            "(Base):\n    width: int = 8\n\n    def forward",
            "(Base):\n    def late",
            "pkg.models.net.Base::forward",
        ),
        ("models/net.py", "width: int = 8", "width: int = 9", "pkg.models.net.Net::width"),
        ("models/net.py", "width: int = 8", "width: float = 8", "pkg.models.net.Net"),
        ("layers/norm.py", "x):\n        return x", "x):\n        return 2 * x", "pkg.layers.norm.Norm::_scale"),
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
    found = changed(with_method, digest_of(package, *ROOTS, "pkg.methods.first:First"))
    assert found == {"pkg.methods.first.First", "pkg.methods.first.First::rate"}


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


def test_vitops_holds_nothing_but_python():
    """A file that code reads from beside itself would be in no digest."""
    folder = vitops_package().folder
    others = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert others == []
