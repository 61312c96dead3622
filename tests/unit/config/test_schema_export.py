import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from vitops.config.load import load
from vitops.config.schema import PATH, schema, text
from vitops.config.yaml_lines import parse, read

ROOT = Path(__file__).parents[3]


def test_the_exported_schema_is_fresh() -> None:
    assert (ROOT / PATH).read_text() == text(), "run `vitops schema --write`"


def test_the_project_file_is_valid_in_every_profile_and_points_to_the_schema() -> None:
    load(ROOT).check()
    head = (ROOT / "pipelines.yaml").read_text().splitlines()[0]
    assert head == f"# yaml-language-server: $schema={PATH}"


def test_the_schema_is_valid_and_accepts_the_project_file() -> None:
    Draft202012Validator.check_schema(schema())
    document = read(ROOT / "pipelines.yaml", name="pipelines.yaml").value
    assert not list(Draft202012Validator(schema()).iter_errors(document))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("      drw: {epoch: 1}", "      drw: {epok: 1}"),
        ("    profiles: {quick: {teacher: {epochs: 1}}}", "    profiles: {quick: {teacher: {epoch: 1}}}"),
        ("    profiles: {quick: {teacher: {epochs: 1}}}", "    profiles: {quick: {datasets: {}}}"),
        ("flow: compress", "flow: compres"),
        ("imbalance_factor: 5", "imbalance_factor: 0.01"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(old: str, new: str) -> None:
    good = SMALL
    assert old in good
    validator = Draft202012Validator(schema())
    assert not list(validator.iter_errors(parse(good, name="f").value))
    assert list(validator.iter_errors(parse(good.replace(old, new), name="f").value))


def test_every_key_says_what_it_is_or_has_a_type() -> None:
    definitions = json.loads(text())["$defs"]
    assert definitions["LongtailSplit"]["properties"]["imbalance_factor"]["minimum"] == 1
    assert "learning rate" in definitions["Optimizer"]["properties"]["lr"]["description"].lower()


SMALL = f"""\
datasets:
  d:
    source: {{kind: folder, path: x}}
    splits: {{s: {{kind: longtail, imbalance_factor: 5}}}}
pipelines:
  p:
    flow: compress
    dataset: d
    split: s
    student: {"a" * 64}
    teacher: {"b" * 64}
    prune:
      finetune:
        objective:
          kind: cross_entropy
          drw: {{epoch: 1}}
        epochs: 2
        micro_batch_size: 4
        preprocessing: {{size: 32}}
        optimizer: {{name: sgd, lr: 0.1}}
    profiles: {{quick: {{prune: {{finetune: {{epochs: 1}}}}}}}}
  q:
    flow: retrain
    dataset: d
    split: s
    teacher: &train
      model: {{kind: cifar_resnet}}
      objective: {{kind: ldam}}
      epochs: 2
      micro_batch_size: 4
      preprocessing: {{size: 32}}
      optimizer: {{name: sgd, lr: 0.1}}
    student: *train
    prune:
      finetune: {{objective: {{kind: nvit}}, epochs: 2, micro_batch_size: 4, preprocessing: {{size: 32}},
        optimizer: {{name: sgd, lr: 0.1}}}}
    profiles: {{quick: {{teacher: {{epochs: 1}}}}}}
"""
