"""Open a project for one request: its resolved configuration, its store and its ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vitops.config.load import load, store_home
from vitops.config.pipelines import Project, Resources
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.lineage.shared_ledger import open_ledger
from vitops.plan import recorded, weights
from vitops.plan.code.digest import code_digest, vitops_package
from vitops.plan.execute import Place
from vitops.plan.plan import Planned, plan, resolved
from vitops.plan.record import RunRecord, new_run_id
from vitops.plan.request import RunRequest
from vitops.plan.stages import Stage
from vitops.store.artifacts import Store
from vitops.store.shared import open_store


@dataclass(frozen=True)
class Opened:
    """A project as one request sees it."""

    request: RunRequest
    root: Path
    project: Project
    store: Store
    ledger: Ledger

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that the request asks for, upstream first."""
        return resolved(self.store, self.project, self.request.pipeline, until=self.request.until)

    @property
    def resources(self) -> Resources:
        """Where the pipeline's stages run."""
        return self.project.pipelines[self.request.pipeline].resources

    @property
    def flow(self) -> str:
        """Name of the pipeline's flow."""
        return self.project.pipelines[self.request.pipeline].flow

    def plan(self) -> list[Planned]:
        """What a run of the request would do."""
        return plan(self.root, self.store, self.ledger, self.project, self.request.pipeline, until=self.request.until)

    def check_weights(self, planned: Iterable[Planned]) -> list[str]:
        """What the run would download, one sentence each. Raises UsageError for a file that is missing or another."""
        hits = {stage.name for stage in planned if stage.status == "hit"}
        due = [stage for stage in self.stages if stage.name not in hits]
        return weights.check_files(self.root, self.request.pipeline, due, memo=self.store.memo)

    def place(self) -> Place:
        """A new run of the request. Raises VitopsError where the shared store's server cannot be written safely."""
        self.store.check_server()
        folder = self.store.runs / (self.request.run_id or new_run_id())
        configuration = recorded.configuration(self.project, self.request.pipeline)
        record = RunRecord(folder, pipeline=self.request.pipeline, stages=self.stages, configuration=configuration)
        package = vitops_package(self.store.memo)
        code = {stage.name: code_digest(stage.roots, package=package) for stage in self.stages}
        return Place(
            root=self.root,
            store=self.store,
            ledger=self.ledger,
            record=record,
            code=code,
            allow_environment_change=self.request.allow_environment_change,
        )


def open_project(request: RunRequest) -> Opened:
    """Load and validate what the request names. Raises UsageError."""
    root = request.root.resolve()
    loaded = load(
        root, file=request.file, profile=request.profile, overrides=request.overrides, workers=request.workers
    )
    project = loaded.only(request.pipeline)
    home = request.home or store_home(root)
    store = _store(home)
    ledger = open_ledger(home, store.shared)
    return Opened(request=request, root=root, project=project, store=store, ledger=ledger)


def _store(home: Path) -> Store:
    try:
        return open_store(home)
    except OSError as error:
        raise UsageError(
            f"{home}: cannot hold the store ({error.strerror}). Set VITOPS_HOME to a folder that can be written."
        ) from error
