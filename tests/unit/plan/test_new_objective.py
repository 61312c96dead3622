"""One more objective is one more file and one more class: no stage of any pipeline gets another code digest."""

import shutil
from pathlib import Path

import pytest

from vitops.config.load import load
from vitops.plan.code.definitions import Package
from vitops.plan.code.digest import PACKAGE, code_digest
from vitops.plan.stages import stages

PROJECT = Path(__file__).parents[3]
SECTION = '''class Fresh(SoftTargets):
    """An objective of a later release."""

    implementation: ClassVar[str] = "vitops.losses.fresh:Fresh"
    kind: Literal["fresh"] = "fresh"
    gain: float = Field(2.0, ge=0)

    def check_model(self, model: Section) -> None:
        """It asks for a distilled model."""
        check_distilled(model, kind=self.kind)


Objective = Annotated['''
IMPLEMENTATION = """
from vitops.losses.kd import Kd


class Fresh(Kd):
    def parts(self, student, teacher, *, role, sample):
        return {"fresh": self.config.gain * super().parts(student, teacher, role=role, sample=sample)["distill"]}
"""


@pytest.fixture
def extended(tmp_path):
    """vitops as it is, with one objective more."""
    folder = tmp_path / "vitops"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / "config" / "objectives.py"
    text = config.read_text()
    assert text.count("Objective = Annotated[\n") == 1
    config.write_text(
        text.replace("Objective = Annotated[", SECTION).replace("    | Uskd,", "    | Uskd\n    | Fresh,")
    )
    (folder / "losses" / "fresh.py").write_text(IMPLEMENTATION)
    return Package(folder)


def test_a_new_objective_changes_the_code_digest_of_no_stage(extended):
    project = load(PROJECT).every()
    found = {stage.roots: (name, stage.name) for name in project.pipelines for stage in stages(project, name)}
    now = Package(PACKAGE)
    for roots, place in found.items():
        assert code_digest(roots, package=extended).digest == code_digest(roots, package=now).digest, place
    fresh = ["vitops.losses.fresh:Fresh", "vitops.config.objectives:Fresh"]
    assert "vitops.losses.fresh.Fresh" in code_digest(fresh, package=extended).definitions
