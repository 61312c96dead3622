"""A throw-away project for tests that drive the command as a user would: real DVC, Prefect and (where said) Ray."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = ("pipelines.yaml", "dvc.yaml", "dvc.lock", ".dvc", "data/")
TINY = REPOSITORY / "tests/integration/tiny.yaml"
EXACT = ("ingest", "validate", "split", "teacher", "student", "prune", "export", "quantize", "evaluate", "package")


class Project:
    """A copy of the repository's tracked project files in its own folder, with its own store."""

    def __init__(self, folder: Path, *, code: bool = False) -> None:
        self.folder = folder
        tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
        for name in tracked.stdout.splitlines():
            wanted = name.startswith(FILES) or (code and name.startswith(("vitops/", "flows/", "tasks/")))
            if wanted:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, folder / name)

    def copy(self, folder: Path) -> "Project":
        """The project with its code, store and data in another folder, to be disturbed."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        twin = Project.__new__(Project)
        twin.folder = folder
        return twin

    def command(self, *arguments: str) -> list[str]:
        """The argument vector of ``vitops ...``."""
        return [str(Path(sys.executable).with_name("vitops")), *arguments]

    def vitops(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run ``vitops ...`` in the project to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self._environment(environment),
            capture_output=True,
            text=True,
        )

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start ``vitops ...`` in a process group of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self._environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str) -> dict[str, Any]:
        """``vitops run tiny --json``, which must succeed."""
        done = self.vitops("run", "tiny", "--file", str(TINY), "--json", *options)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def plan(self, *options: str) -> dict[str, dict[str, Any]]:
        """``vitops plan tiny --json`` by stage name."""
        done = self.vitops("plan", "tiny", "--file", str(TINY), "--json", *options)
        assert done.returncode == 0, done.stderr
        return {stage["name"]: stage for stage in json.loads(done.stdout)["stages"]}

    def log(self) -> str:
        """The end of the newest run's log."""
        logs = sorted(self.folder.glob(".vitops/runs/*/log.txt"))
        return logs[-1].read_text()[-4000:] if logs else ""

    def wait_for(self, process: "subprocess.Popen[str]", stage: str, *, step: int, epoch: int = 0) -> None:
        """Wait until the running ``stage`` has passed ``step`` of ``epoch`` (both as progress.json counts them)."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            for file in self.folder.glob(".vitops/runs/*/progress.json"):
                progress = json.loads(file.read_text())
                place = (progress.get("epoch", 0), progress.get("step", 0))
                if progress["stage"] == stage and place >= (epoch, step):
                    return
            time.sleep(0.05)
        raise AssertionError(f"stage {stage} never came to epoch {epoch} step {step}: {self.log()}")

    def _environment(self, changes: dict[str, str]) -> dict[str, str]:
        """Without the tester's own settings; the project's copy of the code comes first on the path if it has one."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VITOPS_", "PREFECT_"))}
        code = {"PYTHONPATH": str(self.folder)} if (self.folder / "vitops").is_dir() else {}
        return kept | code | {"PREFECT_HOME": str(REPOSITORY / ".prefect")} | changes


def digests(document: dict[str, Any]) -> dict[str, str]:
    """Digest of every exact stage of a run's document."""
    return {stage["name"]: stage["digest"] for stage in document["stages"] if stage["exactness"] == "exact"}


def statuses(document: dict[str, Any]) -> dict[str, str]:
    """Status of every stage of a run's document."""
    return {stage["name"]: stage["status"] for stage in document["stages"]}


def kill_group(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Signal the whole process group of a started command and wait for it."""
    os.killpg(process.pid, number)
    process.communicate(timeout=90)
