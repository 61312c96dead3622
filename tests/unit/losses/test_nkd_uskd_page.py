import re
from pathlib import Path
from typing import get_args

import yaml
from pydantic import TypeAdapter

from vitops.config.objectives import Nkd, Objective, Uskd

PAGE = (Path(__file__).parents[3] / "docs" / "methods" / "nkd_uskd.md").read_text()


def test_the_recipes_of_the_page_are_valid_configuration():
    snippets = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        for kind, section in yaml.safe_load(snippet).items():
            assert TypeAdapter(Objective).validate_python(section).kind == kind


def test_the_page_lists_every_knob_with_its_default():
    listed = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \| (?:`nkd`|`uskd`|both):", PAGE, flags=re.MULTILINE))
    knobs = {name: field.default for kind in (Uskd, Nkd) for name, field in kind.model_fields.items()}
    assert listed.keys() == knobs.keys() - {"kind"}
    numbers = {name: default for name, default in knobs.items() if type(default) is float}
    assert {name: float(listed[name]) for name in numbers} == numbers


def test_the_page_names_every_objective():
    kinds = {kind.model_fields["kind"].default for kind in get_args(get_args(Objective)[0])}
    assert kinds - {"nvit", "deit_lt"} <= set(re.findall(r"`([a-z_]+)`", PAGE))
