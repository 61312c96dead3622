"""Code that no name leads to counts where it can be felt."""

import pytest
from digests import changed, digest_of, grow

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
