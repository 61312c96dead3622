"""A miniature project on disk and random edits of it: code, parameters, data and artifacts."""

import ast
import json
import os
import random
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.edits import sources

_MARK = re.compile(r"\$(\w+)\$")
_NUMBERS = sorted({name for text in sources.FILES.values() for name in _MARK.findall(text) if name.startswith("n_")})
_LOCALS = sorted({name for text in sources.FILES.values() for name in _MARK.findall(text) if name.startswith("l_")})
_LIMITED = {"n_limit", "n_coarse", "n_modulus"}
_CODE = [name for name in sources.FILES if name.startswith("mini/") and name != "mini/pipeline.py"]
EDITS = {
    "number": 30,
    "variant": 6,
    "method": 2,
    "parameter": 8,
    "default": 5,
    "revert": 6,
    "data": 5,
    "comment": 6,
    "docstring": 5,
    "blank_lines": 4,
    "reformat": 3,
    "rename_local": 4,
    "add_definition": 5,
    "add_file": 3,
    "move_definition": 2,
    "touch_code": 3,
    "touch_data": 2,
    "neutral_field": 2,
    "damage_blob": 3,
    "delete_blob": 3,
    "replace_copy": 2,
}
"""Kinds of edits and how often each is drawn."""
PRESERVING = frozenset(
    """comment docstring blank_lines reformat rename_local add_definition add_file move_definition touch_code touch_data
    neutral_field replace_copy""".split()  # noqa: SIM905
)
"""Kinds that cannot change what a stage makes."""

State = dict[str, Any]


class Project:
    """The project in ``folder``: a copy of vitops with the rooms of ``sources``, its parameters and its data."""

    def __init__(self, folder: Path, vitops: Path) -> None:
        self.root, self.package, self.home = folder, folder / "vitops", folder / ".vitops"
        shutil.copytree(vitops, self.package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        self.data = folder / "data/toy/splits/all"
        self.data.mkdir(parents=True)
        self.state: State = {
            "values": {name: 10 + number for number, name in enumerate(_NUMBERS)}
            | {name: f"{name[2:]}_" for name in _LOCALS}
            | {name: texts[0] for name, texts in sources.VARIANTS.items()},
            "neutral": {name: [] for name in _CODE},
            "extra": [],
            "parameters": json.loads(json.dumps(sources.PARAMETERS)),
            "data": dict(sources.DATA),
        }
        self.damaged: set[str] = set()
        """Names of the blobs that edits altered or deleted, mended since or not."""
        self._earlier: list[State] = []
        self._written: dict[Path, str] = {}
        self.write()

    def edit(self, kind: str, random_: random.Random) -> str:
        """Make one edit of that kind; say what was done."""
        self._earlier.append(json.loads(json.dumps(self.state)))
        what: str = getattr(self, f"_{kind}")(random_)
        self.write()
        return what

    def write(self) -> None:
        """Bring the files to the state, touching only those that differ."""
        wanted = {self.package / name: self._render(name) for name in sources.FILES}
        wanted |= {self.package / "mini" / name: f"value = {name!r}\n" for name in self.state["extra"]}
        wanted |= {self.data / name: text for name, text in self.state["data"].items()}
        wanted[self.root / "parameters.json"] = json.dumps(self.state["parameters"])
        for path in self._written.keys() - wanted.keys():
            path.unlink()
        for path, text in wanted.items():
            if self._written.get(path) != text:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        self._written = wanted

    def _render(self, name: str) -> str:
        text = textwrap.dedent(sources.FILES[name]).lstrip("\n")
        while _MARK.search(text):
            text = _MARK.sub(lambda found: str(self.state["values"][found[1]]), text)
        for kind, seed in self.state["neutral"].get(name, []):
            text = _REWRITES[kind](text, random.Random(seed))
        ast.parse(text)
        return text

    def _number(self, random_: random.Random) -> str:
        name = random_.choice([name for name in _NUMBERS if not name.startswith("n_default")])
        return self._new_value(name, random_)

    def _default(self, random_: random.Random) -> str:
        return self._new_value(random_.choice([name for name in _NUMBERS if name.startswith("n_default")]), random_)

    def _new_value(self, name: str, random_: random.Random) -> str:
        low, high = (1000, 10**9) if name in _LIMITED else (10, 99)  # two digits keep a file's size
        old = self.state["values"][name]
        self.state["values"][name] = random_.choice(
            [value for value in (random_.randint(low, high),) if value != old] or [old + 1]
        )
        return f"{name} {old} -> {self.state['values'][name]}"

    def _variant(self, random_: random.Random) -> str:
        return self._switch(random_.choice(sorted(sources.VARIANTS.keys() - {"v_neutral"})), random_)

    def _neutral_field(self, random_: random.Random) -> str:
        return self._switch("v_neutral", random_)

    def _switch(self, name: str, random_: random.Random) -> str:
        old = self.state["values"][name]
        self.state["values"][name] = random_.choice([text for text in sources.VARIANTS[name] if text != old])
        return f"{name} {old!r} -> {self.state['values'][name]!r}"

    def _method(self, random_: random.Random) -> str:
        stage = random_.choice(["teacher", "student"])
        section = self.state["parameters"][stage]["method"]
        section["kind"] = "beta" if section["kind"] == "alpha" else "alpha"
        return f"{stage}.method.kind = {section['kind']}"

    def _parameter(self, random_: random.Random) -> str:
        stage, key = random_.choice(
            [
                ("teacher", "epochs"),
                ("teacher", "width"),
                ("student", "epochs"),
                ("prune", "ratio"),
                ("export", "opset"),
            ]
        )
        self.state["parameters"][stage][key] = value = random_.randint(10, 10**6)
        return f"{stage}.{key} = {value}"

    def _revert(self, random_: random.Random) -> str:
        back = random_.randint(1, min(8, len(self._earlier)))
        self.state = json.loads(json.dumps(self._earlier[-back]))
        return f"{back} edits back"

    def _data(self, random_: random.Random) -> str:
        name = random_.choice(sorted(self.state["data"]))
        self.state["data"][name] = " ".join(str(random_.randint(1, 9)) for _ in range(4))
        return name

    def _rename_local(self, random_: random.Random) -> str:
        name = random_.choice(_LOCALS)
        self.state["values"][name] = f"{name[2:]}_{random_.randint(0, 10**6)}"
        return name

    def _add_file(self, random_: random.Random) -> str:
        self.state["extra"].append(f"extra_{random_.randint(0, 10**9)}.py")
        return self.state["extra"][-1]

    def _touch_code(self, random_: random.Random) -> str:
        return _touch(self.package / random_.choice(_CODE))

    def _touch_data(self, random_: random.Random) -> str:
        return _touch(self.data / random_.choice(sorted(self.state["data"])))

    def _damage_blob(self, random_: random.Random) -> str:
        blob = self._blob(random_)
        blob.chmod(0o644)
        before = blob.stat()
        blob.write_bytes(b"#" * before.st_size)
        os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
        return blob.name[:12]

    def _delete_blob(self, random_: random.Random) -> str:
        blob = self._blob(random_)
        blob.unlink()
        return blob.name[:12]

    def _replace_copy(self, random_: random.Random) -> str:
        copies = sorted((self.home / "cache/artifacts").glob("*/*.txt"))
        path = random_.choice(copies)
        path.write_text("replaced")
        return f"{path.parent.name[:12]}/{path.name}"

    def _blob(self, random_: random.Random) -> Path:
        blob = random_.choice(sorted((self.home / "objects/blobs").glob("*/*")))
        self.damaged.add(blob.name)
        return blob

    def _rewrite(self, kind: str, random_: random.Random) -> str:
        name = random_.choice([name for name in _CODE if sources.FILES[name].strip()])
        self.state["neutral"][name] = [*self.state["neutral"][name][-4:], [kind, random_.randint(0, 10**9)]]
        return name

    def __getattr__(self, name: str) -> Any:
        if (kind := name.removeprefix("_")) in _REWRITES:
            return lambda random_: self._rewrite(kind, random_)
        raise AttributeError(name)


def _touch(path: Path) -> str:
    os.utime(path)
    return path.name


def _comment(text: str, random_: random.Random) -> str:
    lines = text.splitlines()
    places = [number for number, line in enumerate(lines) if line.strip() and '"""' not in line]
    note = f"# note {random_.randint(0, 10**6)}"
    if not places:
        return f"{text}{note}\n"
    lines[random_.choice(places)] += f"  {note}"
    return "\n".join(lines) + "\n"


def _docstring(text: str, random_: random.Random) -> str:
    tree = ast.parse(text)
    holders = [item for item in ast.walk(tree) if isinstance(item, ast.Module | ast.FunctionDef | ast.ClassDef)]
    holder = random_.choice(holders)
    if ast.get_docstring(holder) is not None:
        holder.body = holder.body[1:] or [ast.Pass()]
    holder.body.insert(0, ast.Expr(ast.Constant(f"Sentence {random_.randint(0, 10**6)}.")))
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def _blank_lines(text: str, random_: random.Random) -> str:
    return "\n".join(f"{line}\n" if random_.random() < 0.3 else line for line in text.splitlines()) + "\n"


def _reformat(text: str, random_: random.Random) -> str:
    return ast.unparse(ast.parse(text)) + "\n" * random_.randint(1, 4)


def _add_definition(text: str, random_: random.Random) -> str:
    name = f"added_{random_.randint(0, 10**9)}"
    shapes = [
        f"def {name}(x):\n    return x + {random_.randint(0, 99)}\n",
        f"class {name}:\n    rate = {random_.randint(0, 99)}\n",
        f"{name} = {random_.randint(0, 99)}\n",
    ]
    return f"{text}\n\n{random_.choice(shapes)}"


def _move_definition(text: str, random_: random.Random) -> str:
    """Functions without decorators and defaults may stand anywhere."""
    tree = ast.parse(text)
    movable = [item for item in tree.body if isinstance(item, ast.FunctionDef) and not item.decorator_list]
    movable = [item for item in movable if not item.args.defaults and not item.args.kw_defaults]
    if movable and "ORDER" not in text:
        chosen = random_.choice(movable)
        tree.body.remove(chosen)
        tree.body.append(chosen)
    return ast.unparse(tree) + "\n"


_REWRITES = {
    "comment": _comment,
    "docstring": _docstring,
    "blank_lines": _blank_lines,
    "reformat": _reformat,
    "add_definition": _add_definition,
    "move_definition": _move_definition,
}
