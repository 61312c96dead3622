"""Losses of a distributed run: ``vitops run`` with Prefect, DVC and two Ray workers, struck in the student's training.

Each scenario is a project in which everything before the student is done. The run is struck once; it must end with the
exit code that the guide promises, leave no process behind, and (in this run, or when the same command is typed again)
go on from a checkpoint to the bytes of a student that one undisturbed process trained. The last line is one JSON
object; exit code 0 only if every scenario held.

    PYTHONPATH=tests python tests/faults/distributed.py [NAME ...]
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from project import TINY, Project, digests
from ray_nodes import Nodes

COMMAND = ("run", "tiny", "--file", str(TINY), "--json", "--until", "student")
RAY = ("--set", "resources.launcher=ray", "--workers", "2", "--set", "resources.node_deadline_seconds=5")
PATIENCE = 300
"""Seconds that anything may take."""
GRACE = 30
"""Seconds that a container runtime waits after SIGTERM."""
SYSTEMD = 90
"""Seconds that systemd waits."""


class Run:
    """A started command, and the services that it was told of."""

    def __init__(self, project, services):
        self.project, self.services = project, services
        self.process = project.start(*COMMAND, *RAY, **services.environment)

    def training(self):
        """Wait until the student is in the middle of its training."""
        self.project.wait_for(self.process, "student", epoch=1, step=4)

    def prefect_starting(self):
        """Wait until Prefect's server is there, some moments old."""
        self._until(lambda: self.family("uvicorn"))

    def cluster_starting(self):
        """Wait until Ray's node process is there; no stage has begun."""
        self._until(lambda: self.family("raylet"))

    def workers_starting(self):
        """Wait until the student's stage runs, whose workers are still to come."""
        self._until(lambda: any(self._running(file) for file in self.project.folder.glob(".vitops/runs/*/run.json")))

    def family(self, word=""):
        """Descendants whose command line has this word."""
        with suppress(psutil.NoSuchProcess):
            return [one for one in psutil.Process(self.process.pid).children(recursive=True) if word in _command(one)]
        return []

    def strides_again(self, since):
        """Seconds from this moment of the clock to the next step of the student; None when the run ended before one."""
        while self.process.poll() is None:
            for file in self.project.folder.glob(".vitops/runs/*/progress.json"):
                progress = json.loads(file.read_text())
                if progress["stage"] == "student" and progress["time"] > since + 0.5 and "step" in progress:
                    return progress["time"] - since
            time.sleep(0.05)
        return None

    def _until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.project.log()
            time.sleep(0.02)

    def _running(self, file):
        stages = json.loads(file.read_text())["stages"]
        return any(stage["name"] == "student" and stage["status"] == "running" for stage in stages)


class Services:
    """What a run finds outside: a Ray cluster of two nodes, a Prefect server, or nothing."""

    def __init__(self):
        self.environment, self.nodes, self.server = {}, None, None

    @contextmanager
    def cluster(self, _folder):
        """A Ray cluster that ``RAY_ADDRESS`` names."""
        self.nodes = Nodes(2)
        self.environment["RAY_ADDRESS"] = self.nodes.address
        try:
            yield
        finally:
            self.nodes.close()

    @contextmanager
    def prefect(self, folder):
        """A Prefect server that ``PREFECT_API_URL`` names."""
        port = _free_port()
        url = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--port", str(port)]
        home = {"PREFECT_HOME": str(folder / "server"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self.server = subprocess.Popen(
            command, env=os.environ | home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.environment["PREFECT_API_URL"] = url
        try:
            _wait_for_answer(url)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()


def kill_a_worker(run):
    """SIGKILL one of the two workers."""
    run.family("ray::RayTrainWorker")[0].kill()


def kill_the_raylet(run):
    """SIGKILL Ray's node process inside this machine."""
    run.family("raylet/raylet")[0].kill()


def kill_the_driver(run):
    """SIGKILL the flow's process, Ray's driver."""
    run.family("-m flows")[0].kill()


def freeze_a_node(run):
    """A node falls silent in the middle of a step."""
    run.services.nodes.freeze()


def kill_prefect(run):
    """SIGKILL the Prefect server that the run reports to."""
    os.killpg(run.services.server.pid, signal.SIGKILL)


def kill_the_command(run):
    """SIGKILL the command alone."""
    run.process.kill()


def terminate(run):
    """SIGTERM to the command alone, as Kubernetes does."""
    run.process.terminate()


def terminate_the_group(run):
    """SIGTERM to the command's process group."""
    os.killpg(run.process.pid, signal.SIGTERM)


def terminate_every_process(run):
    """SIGTERM to every process of the run at once, as systemd does."""
    for process in [*run.family(), psutil.Process(run.process.pid)]:
        with suppress(psutil.NoSuchProcess):
            process.terminate()


@dataclass(frozen=True)
class Scenario:
    """One loss and what is promised for it."""

    strike: Callable[[Run], None]
    code: int
    """Exit code of the run that is struck."""
    may_finish: bool = False
    """Whether it may also be done (exit code 0) before Ray notices."""
    moment: Callable[[Run], None] = Run.training
    within: float | None = None
    """Seconds in which it must end."""
    needs: Callable | None = None
    """A service of ``Services``."""


STOPPED, DIED, KILLED = 75, 1, -signal.SIGKILL
SCENARIOS = {
    "worker killed": Scenario(kill_a_worker, 0),
    "node silent": Scenario(freeze_a_node, 0, needs=Services.cluster),
    "raylet killed": Scenario(kill_the_raylet, DIED, may_finish=True),
    "driver killed": Scenario(kill_the_driver, DIED),
    "command killed": Scenario(kill_the_command, KILLED),
    "command killed while Prefect starts": Scenario(kill_the_command, KILLED, moment=Run.prefect_starting),
    "SIGTERM": Scenario(terminate, STOPPED, within=GRACE),
    "SIGTERM to the group": Scenario(terminate_the_group, STOPPED, within=GRACE),
    "SIGTERM to all": Scenario(terminate_every_process, STOPPED, within=SYSTEMD),
    "SIGTERM while Ray starts": Scenario(terminate, STOPPED, moment=Run.cluster_starting, within=GRACE),
    "SIGTERM while workers start": Scenario(terminate, STOPPED, moment=Run.workers_starting, within=GRACE),
    "Prefect killed": Scenario(kill_prefect, 0, needs=Services.prefect),
}


def scenarios(folder, names=tuple(SCENARIOS)):
    """Try these scenarios below ``folder``; counts, seconds by name, and sentences about what did not hold."""
    begun, expected = _begun(folder)
    found = {name: _tried(SCENARIOS[name], begun, expected, folder / f"scenario-{n}") for n, name in enumerate(names)}
    return {
        "scenarios": len(found),
        "failed": sum(bool(wrong) for _, wrong in found.values()),
        "seconds": {name: times for name, (times, _) in found.items()},
        "findings": {name: wrong for name, (_, wrong) in found.items() if wrong},
    }


def main(names):
    """Try the named scenarios, or all; the exit code."""
    with tempfile.TemporaryDirectory(prefix="vitops-distributed-") as folder:
        summary = scenarios(Path(folder), names or tuple(SCENARIOS))
    for name, wrong in summary.pop("findings").items():
        sys.stdout.write(f"{name}: " + "\n".join(wrong) + "\n")
    summary["holds"] = not summary["failed"]
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if summary["holds"] else 1


def _begun(folder):
    """A project that has everything up to the teacher, and the student's digest where nothing is disturbed."""
    for name in ("begun", "undisturbed"):
        (folder / name).mkdir()
    begun = Project(folder / "begun", code=True)
    begun.run("--until", "teacher")
    return begun, digests(begun.copy(folder / "undisturbed").run("--until", "student"))


def _tried(scenario, begun, expected, folder):
    """(seconds to the next step and to the end, sentences about what did not hold)."""
    folder.mkdir()
    services = Services()
    with ExitStack() as stack:
        if scenario.needs:
            stack.enter_context(scenario.needs(services, folder))
        run = Run(begun.copy(folder / "project"), services)
        scenario.moment(run)
        struck = time.time()
        scenario.strike(run)
        step = run.strides_again(struck) if scenario.code == 0 else None
        out, err = run.process.communicate(timeout=PATIENCE)
        ended = time.time() - struck
        finished = scenario.may_finish and run.process.returncode == 0
        wrong = [] if finished else _wrong_end(scenario, run.process.returncode, ended, err + run.project.log())
        wrong += _left_behind(run.project.folder)
        if run.process.returncode:
            out = run.project.vitops(*COMMAND, *RAY, **services.environment).stdout
    wrong += _wrong_result(scenario, out, expected, from_start=finished)
    times = {"ended": round(ended, 1)} | ({"next step": round(step, 1)} if step else {})
    sys.stderr.write(f"{folder.name} {scenario.strike.__name__}: {times} {'; '.join(wrong) or 'holds'}\n")
    return times, wrong


def _wrong_end(scenario, code, seconds, said):
    late = scenario.within is not None and seconds > scenario.within
    return [
        *([f"exit code {code} instead of {scenario.code}: {said}"] if code != scenario.code else []),
        *([f"it took {seconds:.1f} s to end"] if late else []),
    ]


def _wrong_result(scenario, out, expected, *, from_start):
    """What is not as promised in the document of the run that came to the end."""
    try:
        document = json.loads(out)
    except json.JSONDecodeError:
        return [f"the run did not come to its end: {out}"]
    student = document["stages"][-1]
    started = from_start or scenario.moment is not Run.training or student["resumed_from"]
    return [
        *([] if digests(document) == expected else [f"{digests(document)} instead of {expected}"]),
        *([] if started or scenario.strike is kill_prefect else ["it began from the start"]),
    ]


def _left_behind(folder):
    """Processes that still work in the project some seconds after the command has ended."""
    deadline = time.monotonic() + 10
    while (there := list(_working_in(folder))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [f"left behind: {_command(process)[:200]}" for process in there]


def _working_in(folder):
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                yield process


def _command(process):
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_answer(url):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
