import re
from pathlib import Path

import yaml

from vitops.config.objectives import DeitLt
from vitops.config.training import Train

PAGE = (Path(__file__).parents[3] / "docs" / "methods" / "deit_lt.md").read_text()


def test_the_recipe_of_the_page_is_valid_configuration():
    [snippet] = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    for stage in yaml.safe_load(snippet).values():
        Train.model_validate(stage | {"preprocessing": {"size": 224}})


def test_the_page_lists_every_knob():
    listed = re.findall(r"^\| `([a-z_.]+)` \|", PAGE, flags=re.MULTILINE)
    knobs = {name for name in DeitLt.model_fields if name not in ("kind", "drw")} | {"drw.epoch", "drw.beta"}
    assert set(listed) == knobs
