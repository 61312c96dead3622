"""One dataset's data stages as they are now: judging them, executing them, restoring their outputs."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vitops.config.load import load
from vitops.data import configured, dvc_process, source_file
from vitops.data.dvc_files import DvcFiles, Lock
from vitops.data.dvc_process import Say
from vitops.errors import UsageError, VitopsError
from vitops.store import canonical, durable, manifest
from vitops.store.stat_memo import StatMemo

STAGES = ("ingest", "validate", "split")
OUTPUT = {"ingest": "shards", "validate": "gates", "split": "splits"}
_BEFORE = {"ingest": ("configure", "arrive"), "validate": ("configure",), "split": ("configure",)}
_STATES = "data_status"


@dataclass(frozen=True)
class Verdict:
    """The verdict on one stage of a dataset, whatever the split."""

    reason: str
    """Why it would be executed; empty if unchanged."""
    digests: dict[str, str] = field(default_factory=dict)
    """Folder below the output (``.`` for itself) -> digest."""
    missing: bool = False
    """The output is not in the workspace and can be restored."""


class Plane:
    """One dataset's data stages as they are now."""

    def __init__(self, root: Path, dataset: str, memo: StatMemo) -> None:
        self.root, self.dataset, self.memo = root, dataset, memo
        self.config = load(root).dataset(dataset)
        self.folder = root / "data" / dataset
        self._files = DvcFiles(root)

    def verdicts(self) -> dict[str, Verdict]:
        """Stage -> verdict, from the stat record if nothing moved."""
        question = self._question()
        answer = self._remembered(question)
        if answer["question"] != question:
            self.memo.forget(_STATES, self._name)
            answer = self._remembered(question)
        if not all((self.folder / output).is_dir() for output in OUTPUT.values()):
            self.memo.forget(_STATES, self._name)  # it hangs on DVC's cache, which no stat record here vouches for
        return {stage: Verdict(**value) for stage, value in answer["verdicts"].items()}

    def execute(self, stage: str, *, say: Say) -> None:
        """Run the stage's command, and what must run before it, through DVC."""
        self._check_project()
        if stage == "ingest":
            self._settle_arrivals(say=say)
        for damaged in self._files.remove_damaged(self._lock(stage).out(self._out(stage))):
            say(f"removed a damaged object of DVC's cache: {damaged.name}")
        durable.remove(self.folder / OUTPUT[stage])
        names = [self._instance(one) for one in (*_BEFORE[stage], stage)]
        ran = dvc_process.reproduce(self.root, names, say=say)
        if stage not in ran:  # DVC may prefer to check out what it has in its cache
            ran = dvc_process.reproduce(self.root, names[-1:], say=say, force=True)
        if stage not in ran:
            raise VitopsError(f"DVC did not run {names[-1]}: its entry in dvc.yaml must call `vitops data {stage}`")

    def restore(self, stage: str, *, say: Say) -> None:
        """Bring the missing output back from DVC's cache or remote."""
        self._check_project()
        paths = [self._out(stage)]
        if stage == "ingest" and self._files.intact(self._lock("arrive").out(self._arrivals)):
            paths.append(self._arrivals)
        dvc_process.restore(self.root, paths, say=say)

    def _remembered(self, question: str) -> dict[str, Any]:
        return self.memo.group(_STATES, self._name, self._paths(), lambda: self._answer(question))

    def _question(self) -> str:
        """Digest of what a verdict depends on and no stat record shows."""
        sections = {stage: section.parameters() for stage, section in configured.resolved(self.config).items()}
        source = self.root / self.config.source.path
        listing = _listing(source) if source.is_dir() else []
        return canonical.digest({"config": sections, "source": listing})

    def _paths(self) -> list[Path]:
        """The files whose stat records vouch for a verdict."""
        tracked = ("dvc.yaml", "dvc.lock", "data/stages.json", ".dvc/config", ".dvc/config.local")
        outputs = sorted(Path(place, name) for place, _, names in os.walk(self.folder) for name in names)
        return [*(self.root / one for one in tracked), self.root / self.config.source.path, *outputs]

    def _answer(self, question: str) -> dict[str, Any]:
        self._check_project()
        verdicts: dict[str, Verdict] = {}
        for stage in STAGES:
            verdicts[stage] = self._judge(stage, verdicts)
        return {"question": question, "verdicts": {stage: asdict(verdict) for stage, verdict in verdicts.items()}}

    @cached_property
    def _found(self) -> dict[str, list[Any]]:
        """What DVC finds changed, by stage instance."""
        return dvc_process.status(self.root, [self._instance(one) for one in ("configure", "arrive", *STAGES)])

    def _judge(self, stage: str, upstream: Mapping[str, Verdict]) -> Verdict:
        output, lock = self.folder / OUTPUT[stage], self._lock(stage)
        if lock.entry is None:
            return Verdict("was never run here")
        digests = None if output.is_dir() else self._files.restorable(lock.out(self._out(stage)))
        if not output.is_dir() and not digests:
            return Verdict(f"{self._out(stage)} is missing")
        for name in ("arrive", "ingest") if stage == "ingest" else (stage,):
            if reason := self._reason(name, upstream):
                return Verdict(reason)
        return Verdict("", digests, missing=True) if digests else self._read(stage, output)

    def _read(self, stage: str, output: Path) -> Verdict:
        """Check an output that is there against its manifests."""
        places = [output] if stage != "split" else [output / name for name in self.config.splits]
        digests = {}
        for place in places:
            for path, sentence in manifest.differences(
                place, hash_file=lambda file: source_file.hashed(file, self.memo)
            ):
                return Verdict(f"{path.relative_to(self.root)}: {sentence}")
            digests[place.relative_to(output).as_posix()] = manifest.digest(manifest.read(place))
        return Verdict("", digests)

    def _reason(self, name: str, upstream: Mapping[str, Verdict]) -> str:
        """Why DVC would run the instance, less what can be restored; empty if it would not."""
        lock = self._lock(name)
        if lock.entry is None:
            return "was never run here"
        if reason := self._config_reason(name, lock):
            return reason
        changes = self._found.get(self._instance(name), [])
        return "; ".join(_sentences(self._relevant(name, changes, lock, upstream)))

    def _config_reason(self, name: str, lock: Lock) -> str:
        stage = "ingest" if name == "arrive" else name
        file, section = configured.path(self.folder, stage), configured.resolved(self.config)[stage]
        now = hashlib.md5(configured.render(section)).hexdigest()
        recorded = lock.dep(self._relative(file))
        if recorded == now:
            return ""
        old = self._files.intact(recorded)
        keys = configured.changed(old.read_bytes() if old else b"", section)
        return f"datasets.{self.dataset}: {', '.join(keys) or 'the configuration'} changed"

    def _relevant(self, name: str, changes: list[Any], lock: Lock, upstream: Mapping[str, Verdict]) -> list[Any]:
        """The changes without the configuration file (judged by content) and without what is merely not checked out."""
        restored = {self._out(one) for one, verdict in upstream.items() if verdict.missing}
        left: list[Any] = []
        for change in changes:
            if not isinstance(change, dict):
                left.append(change)
                continue
            for kind, paths in change.items():
                kept = {
                    path: state
                    for path, state in paths.items()
                    if not self._uncached(kind, path, state) and not self._excused(name, kind, path, restored, lock)
                }
                left += [{kind: kept}] if kept else []
        return left

    def _uncached(self, kind: str, path: str, state: Any) -> bool:
        """An output that is there as DVC recorded it, and only DVC's copy is gone."""
        return kind == "changed outs" and state == "not in cache" and (self.root / path).exists()

    def _excused(self, name: str, kind: str, path: str, restored: set[str], lock: Lock) -> bool:
        there = (self.root / path).exists()
        if kind == "changed outs":
            return not there and (path in map(self._out, STAGES) or self._files.intact(lock.out(path)) is not None)
        if path == self._relative(configured.path(self.folder, "ingest" if name == "arrive" else name)):
            return True
        if path == self._arrivals and not there:
            return lock.dep(path) == self._lock("arrive").out(path)
        makers = [one for one in STAGES if self._out(one) == path]
        return path in restored and lock.dep(path) == self._lock(makers[0]).out(path)

    def _settle_arrivals(self, *, say: Say) -> None:
        """The previous arrivals number every later one: a missing or altered file is restored if DVC has it."""
        file, recorded = self.root / self._arrivals, self._lock("arrive").out(self._arrivals)
        if recorded is None or (file.exists() and hashlib.md5(file.read_bytes()).hexdigest() == recorded):
            return
        if self._files.intact(recorded) is not None:
            dvc_process.restore(self.root, [self._arrivals], say=say)
        elif not file.exists():
            say(f"{self._arrivals} is in neither workspace, cache nor remote: all samples are numbered anew")

    def _check_project(self) -> None:
        for name in ("dvc.yaml", ".dvc"):
            if not (self.root / name).exists():
                raise UsageError(f"{self.root} has no {name}: copy dvc.yaml and .dvc/config from the vitops repository")
        _without_git(self.root)

    def _lock(self, name: str) -> Lock:
        return self._files.lock(self._instance(name))

    def _instance(self, name: str) -> str:
        return f"{name}@{self.dataset}"

    def _out(self, stage: str) -> str:
        return f"data/{self.dataset}/{OUTPUT[stage]}"

    @property
    def _name(self) -> str:
        return f"{self.root}:{self.dataset}"

    @property
    def _arrivals(self) -> str:
        return f"data/{self.dataset}/arrivals.json"

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _sentences(changes: list[Any]) -> Iterator[str]:
    """What DVC says, in words."""
    for change in changes:
        if not isinstance(change, dict):
            yield f"{change}"
            continue
        for kind, paths in change.items():
            for path, state in paths.items():
                if path == "data/stages.json":
                    yield "its code or a library changed"
                elif isinstance(state, dict):
                    yield f"{path}: {', '.join(f'{key} {what}' for key, what in state.items())}"
                else:
                    yield f"{path} ({'output' if kind == 'changed outs' else 'input'}) is {state}"


def _listing(source: Path) -> list[Any]:
    """Path and stat record of every file of a source folder, sorted."""
    found = []
    for place, _, names in os.walk(source):
        for name in names:
            record = Path(place, name).lstat()
            stat = [record.st_size, record.st_mtime_ns, record.st_ctime_ns, record.st_ino]
            found.append([os.path.relpath(Path(place, name), source), *stat])
    return sorted(found)


def _without_git(root: Path) -> None:
    """A copy of the project outside git: DVC must be told."""
    if any((parent / ".git").exists() for parent in (root, *root.parents)):
        return
    local = root / ".dvc" / "config.local"
    if not local.exists():
        durable.write_bytes(local, b"[core]\n    no_scm = true\n")
