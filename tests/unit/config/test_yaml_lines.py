import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitops.config.yaml_lines import MAX_BYTES, parse, read
from vitops.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0E+2", 100.0),
        (".5", 0.5),
        ("-3", -3),
        ("010", 10),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("'5'", "5"),
        ("~", None),
        ("", None),
        ("True", True),
        (".inf", ".inf"),
        ("[1, {a: b}]", [1, {"a": "b"}]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}", name="f").value["a"]
    assert (found, type(found)) == (value, type(value))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(max_codepoint=0xD7FF)),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    )
)
def test_json_is_read_as_json(value: dict[str, object]) -> None:
    import json

    assert parse(json.dumps(value), name="f").value == value


def test_every_key_knows_its_line() -> None:
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", name="f")
    lines = {path: document.lines[path] for path in [("a",), ("a", "b"), ("a", "c"), ("a", "c", 1, "d")]}
    assert list(lines.values()) == [1, 2, 3, 5]
    assert document.places()[("a", "b")] == "f:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f:3: a: the key stands twice (first in line 1); delete one"),
        ("x:\n  a: {b: 1, b: 2}", "f:2: x.a.b: the key stands twice"),
        ("a: !!python/object/apply:os.system [x]", "f:1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !secret x", "f:1: the tag '!secret' is not read"),
        ("a: 1\n<<: {b: 1}", "f:2: merge keys (<<) are not read"),
        ("a: 1\n[b]: 2", "f:2: a key must be a plain word"),
        ("null: 1", "f:1: the key 'null' is not a word"),
        ("a: 1\n---\nb: 2", "f:2: a second document begins here"),
        ("a: &x [*x]", "f:1: the alias *x names no value that ended before it"),
        ("a: [1,\nb: }", "f:2: is not YAML: "),
        ("a: 1\n\tb: 2", "f:2: is not YAML: "),
        ("a: \x01", "f: is not YAML: unacceptable character"),
    ],
)
def test_what_is_refused_names_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, name="f")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_aliases_stand_for_the_value_they_name() -> None:
    assert parse("a: &x {b: [1]}\nc: *x", name="f").value == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    levels = [f"{new}: &{new} [{', '.join(['*' + old] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    bomb = "\n".join(["a: &a [x, x]", *levels])
    started = time.perf_counter()
    with pytest.raises(UsageError, match="expands to more than 20000 values; use fewer aliases"):
        parse(bomb, name="f")
    assert time.perf_counter() - started < 1


def test_deep_nesting_is_refused_instead_of_overflowing_the_stack() -> None:
    with pytest.raises(UsageError, match="f:1: is nested deeper than 32 levels"):
        parse("a: " + "[" * 50_000, name="f")


def test_an_oversized_file_is_refused() -> None:
    with pytest.raises(UsageError, match="a configuration may have"):
        parse("a" * (MAX_BYTES + 1), name="f")


def test_bytes_that_are_no_text_and_missing_files_are_refused(tmp_path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UsageError, match=r"x:2: is not UTF-8 text"):
        read(path, name="x")
    with pytest.raises(UsageError, match=r"y: cannot be read: No such file"):
        read(tmp_path / "y", name="y")
