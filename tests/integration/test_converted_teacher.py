"""The whole road with a teacher whose weights come from a file, and what is said of files and downloads before it."""

import hashlib
import json
import shutil

from project import TINY, Project

from vitops.store.artifacts import Store

LOCAL = ("--file", str(TINY), "--set", "resources.launcher=local", "--set", "resources.workers=1")


def teacher(artifact, **weights):
    """The option that makes ``weights`` the teacher, described as the artifact describes itself."""
    spec = json.loads((artifact / "model.json").read_text())
    values = {"model": spec["builder"], "preprocessing": spec["preprocessing"], "weights": weights}
    return "--set", f"teacher={json.dumps(values)}"


def test_a_file_teaches_the_whole_road_and_what_is_wrong_with_it_is_said_before_anything_runs(tmp_path):
    project = Project(tmp_path)
    made = project.vitops("run", "tiny", *LOCAL, "--until", "teacher", "--json")
    assert made.returncode == 0, made.stderr
    stages = {stage["name"]: stage for stage in json.loads(made.stdout)["stages"]}
    source = Store(tmp_path / ".vitops").materialize(stages["teacher"]["digest"])
    (tmp_path / "raw").mkdir()
    file = shutil.copy(source / "weights.safetensors", tmp_path / "raw" / "guide.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    wrong = teacher(source, file="raw/guide.safetensors", sha256="0" * 64)
    missing = teacher(source, file="raw/other.safetensors", sha256=digest)
    for verb in ("plan", "run"):
        for option, said in ((wrong, "is asked for"), (missing, "which is not there")):
            refused = project.vitops(verb, "tiny", *LOCAL, *option)
            assert refused.returncode == 2 and "pipelines.tiny.teacher.weights" in refused.stderr, refused.stderr
            assert said in refused.stderr and refused.stdout == ""

    right = teacher(source, file="raw/guide.safetensors", sha256=digest)
    ran = project.vitops("run", "tiny", *LOCAL, *right, "--json")
    assert ran.returncode == 0, ran.stderr
    stages = {stage["name"]: stage for stage in json.loads(ran.stdout)["stages"]}
    assert (stages["teacher"]["kind"], stages["teacher"]["status"]) == ("convert", "executed")
    assert stages["report"]["status"] == "executed"
    file.unlink()
    again = project.vitops("plan", "tiny", *LOCAL, *right, "--json")
    assert {stage["status"] for stage in json.loads(again.stdout)["stages"]} == {"hit"}, "done is done"


def test_a_download_is_announced_and_without_network_the_run_ends_before_it_begins(tmp_path):
    project = Project(tmp_path)
    model = {"kind": "timm", "name": "test_resnet"}
    config = {"model": model, "preprocessing": {"size": 32}, "weights": {"timm": "test_resnet.r160_in1k"}}
    options = (*LOCAL, "--set", f"teacher={json.dumps(config)}")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    planned = project.vitops("plan", "tiny", *options, **offline)
    assert (
        planned.returncode == 0 and "a run downloads model.safetensors of timm/test_resnet.r160_in1k" in planned.stderr
    )
    ran = project.vitops("run", "tiny", *options, "--json", **offline)
    assert ran.returncode == 2, ran.stderr
    assert "a run downloads" in ran.stderr and "must be downloaded, and this machine has no way to" in ran.stderr
    assert json.loads(ran.stdout)["stages"] == []
