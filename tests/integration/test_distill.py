"""A training by itself, as a user drives it: no teacher, a CNN, and its accuracy at the end."""

import json

from project import Project, statuses

PIPELINE = """\
pipelines:
  alone:
    flow: distill
    dataset: digits
    split: longtail
    resources: {launcher: local, workers: 1}
    student:
      model: {kind: timm, name: test_resnet, stem: published}
      objective: {kind: uskd}
      epochs: 1
      effective_batch: 64
      micro_batch_size: 32
      preprocessing: {size: 32}
      optimizer: {name: sgd, lr: 0.1, nesterov: true}
      schedule: {kind: step}
"""


def test_a_student_without_a_teacher_is_trained_and_measured(tmp_path):
    project = Project(tmp_path)
    (tmp_path / "alone.yaml").write_text(PIPELINE)
    done = project.vitops("run", "alone", "--file", "alone.yaml", "--json")
    assert done.returncode == 0, f"{done.stderr}\n{project.log()}"
    document = json.loads(done.stdout)
    assert list(statuses(document)) == ["ingest", "validate", "split", "student", "evaluate"]
    assert document["package"] is None and document["report"] is None
    shown = project.vitops("run", "alone", "--file", "alone.yaml").stdout
    assert shown.count("hit") == 5 and "teacher" not in shown
