"""A small package whose code digest is taken, and what is done to it."""

import textwrap
from pathlib import Path

from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import CodeDigest, code_digest

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


def digest_of(folder: Path, *roots: str) -> CodeDigest:
    return code_digest(roots or ROOTS, package=Package(folder))


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert text.count(old) >= 1, old
    (folder / name).write_text(text.replace(old, new))


def changed(before: CodeDigest, after: CodeDigest) -> set[str]:
    names = {*before.definitions, *after.definitions}
    return {name for name in names if before.definitions.get(name) != after.definitions.get(name)}


def grow(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
