"""``pipelines:`` of pipelines.yaml: one class per flow; its fields are the flow's stages."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from vitops.config.base import KeyProblem, Section
from vitops.config.compression import Export, Prune, Quantize
from vitops.config.datasets import Dataset, Name
from vitops.config.pretrained import Pretrained
from vitops.config.training import Recipe, Train

DIGEST_PATTERN = r"^[0-9a-f]{64}$"
Digest = Annotated[str, Field(pattern=DIGEST_PATTERN)]


def _form(value: Any) -> str:
    if isinstance(value, str):
        return "[digest]"
    imported = isinstance(value, Pretrained) or (isinstance(value, dict) and "weights" in value)
    return "[weights]" if imported else "[stage]"


Teacher = Annotated[
    Annotated[Train, Tag("[stage]")] | Annotated[Pretrained, Tag("[weights]")] | Annotated[Digest, Tag("[digest]")],
    Discriminator(_form),
]
"""A training stage, a model with ``weights`` from elsewhere, or the digest of a model artifact."""
_TAKEN = {"teacher", "split", "model", "dense"}
"""Roles of what stages read already."""


class Evaluate(Section):
    """Accuracy on the test set, overall and by group."""

    many: int = Field(100, ge=1)
    """A class with more training images than this is many-shot."""
    few: int = Field(20, ge=0)
    """A class with fewer training images than this is few-shot."""
    boundaries: tuple[int, int] | None = None
    """Class indices where the official head/mid/tail groups begin to differ, e.g. [3, 7]; null reports none."""

    @model_validator(mode="after")
    def _ordered(self) -> "Evaluate":
        if self.few > self.many:
            raise KeyProblem("few", f"must not exceed many ({self.many}), got {self.few}")
        if self.boundaries and not 0 < self.boundaries[0] < self.boundaries[1]:
            raise KeyProblem("boundaries", f"must be two increasing class indices, got {list(self.boundaries)}")
        return self


class Report(Section):
    """Latency and the offline HTML page."""

    latency_runs: int = Field(200, ge=10)
    """Timed runs per model; the median is reported."""


class Resources(Section):
    """Where and how a stage runs. Only ``mode``, ``device`` and ``threads`` enter stage keys."""

    launcher: Literal["ray", "local"] = "ray"
    """``ray``: Ray Train with ``workers`` processes; ``local``: in the flow's own process."""
    workers: int = Field(2, ge=1)
    """Processes of a training stage: a power of two that divides micro_batches."""
    min_workers: int | None = Field(None, ge=1)
    """Fewest processes with which a training goes on when nodes are lost: a power of two. null is 1 in exact mode,
    whose bits do not depend on their number, and ``workers`` in fast mode."""
    node_deadline_seconds: float = Field(60.0, gt=0)
    """How long a training waits for lost nodes before it goes on with fewer workers or ends with its work saved."""
    threads: int = Field(1, ge=1)
    mode: Literal["exact", "fast"] = "exact"
    """``exact``: the same bits for every number of workers and after every kill; ``fast``: gradients are summed over
    the workers in the backend's order, with any kernels."""
    device: Literal["cpu", "cuda"] = "cpu"
    checkpoint_seconds: float = Field(20.0, gt=0)
    """A kill costs at most this much work, or one step: a checkpoint begins when half of it has passed."""
    checkpoint_steps: int | None = Field(None, ge=1)
    """... and at most this many steps; null counts time only."""

    @property
    def fewest_workers(self) -> int:
        """``min_workers``, or what null means."""
        return self.min_workers or (1 if self.mode == "exact" else self.workers)

    @model_validator(mode="after")
    def _workers_allowed(self) -> "Resources":
        for name in ("workers", "min_workers"):
            number = getattr(self, name) or 1
            if number & (number - 1):
                raise KeyProblem(name, f"must be a power of two, got {number}")
        if self.fewest_workers > self.workers:
            raise KeyProblem("min_workers", f"must not be more than workers ({self.workers}), got {self.min_workers}")
        if self.mode == "fast" and self.fewest_workers != self.workers:
            raise KeyProblem("min_workers", f"must be workers ({self.workers}) in fast mode: their number changes bits")
        return self


class Pipeline(Section):
    """What every pipeline has."""

    dataset: str
    """A name under datasets:."""
    split: str
    """A named split of that dataset."""
    seed: int = Field(0, ge=0, lt=2**32)
    resources: Resources = Resources()

    def _check_workers(self, **recipes: Recipe) -> None:
        workers = self.resources.workers
        for name, recipe in recipes.items():
            if (found := recipe.micro_batches) % workers:
                raise KeyProblem(
                    f"{name}.micro_batches",
                    f"must be a multiple of resources.workers ({workers}; --workers sets it), got {found}",
                )


class _Distilling(Pipeline):
    """What trains a student."""

    teacher: Teacher | None = None
    """A training stage of its own, a model with ``weights`` (a safetensors file, or a name of timm), or the digest of
    a model artifact that was made before."""
    further_teachers: dict[Name, Digest] = Field(default_factory=dict)
    """Role -> digest of a model artifact: teachers beside the one that is trained here, for ``objective.teachers``."""
    student: Train
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _taught(self) -> "_Distilling":
        if isinstance(self.teacher, Train):
            self._check_teacher(self.teacher)
        self._check_workers(student=self.student)
        if taken := sorted(_TAKEN & self.further_teachers.keys()):
            raise KeyProblem(f"further_teachers.{taken[0]}", "is a role that is taken: choose another name")
        own = () if self.teacher is None else ("teacher",)
        check_roles(self.student, (*own, *self.further_teachers), key="student")
        return self

    def _check_teacher(self, teacher: Train) -> None:
        self._check_workers(teacher=teacher)
        if teacher.objective.roles():
            raise KeyProblem(
                "teacher.objective", f"{teacher.objective.kind} needs a teacher, which the teacher stage lacks"
            )


class Distill(_Distilling):
    """data -> teacher -> student -> evaluate: any architecture, with a teacher or without; a recipe of a paper."""

    flow: Literal["distill"] = "distill"

    @model_validator(mode="after")
    def _needed(self) -> "Distill":
        if self.teacher is not None and "teacher" not in self.student.objective.roles():
            raise KeyProblem(
                "teacher", f"is not read: leave it out, for {self.student.objective.kind} has no use for it"
            )
        return self


class Retrain(_Distilling):
    """data -> teacher -> student -> prune -> export -> quantize -> evaluate -> package -> report."""

    flow: Literal["retrain"] = "retrain"
    teacher: Teacher
    """A training stage of its own, a model with ``weights`` (a safetensors file, or a name of timm), or the digest of
    a model artifact that was made before."""
    prune: Prune
    export: Export = Export()
    quantize: Quantize = Quantize()
    report: Report = Report()

    @model_validator(mode="after")
    def _pruned(self) -> "Retrain":
        self._check_workers(**{"prune.finetune": self.prune.finetune})
        check_roles(self.prune.finetune, ("teacher",), key="prune.finetune")
        return self


class Compress(Pipeline):
    """An existing model artifact -> prune -> export -> quantize -> evaluate -> package -> report."""

    flow: Literal["compress"] = "compress"
    student: Digest
    """Digest of the dense model artifact to compress."""
    teacher: Digest
    """Digest of the teacher artifact for fine-tuning."""
    prune: Prune
    export: Export = Export()
    quantize: Quantize = Quantize()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @model_validator(mode="after")
    def _consistent(self) -> "Compress":
        self._check_workers(**{"prune.finetune": self.prune.finetune})
        check_roles(self.prune.finetune, ("teacher",), key="prune.finetune")
        return self


def check_roles(recipe: Recipe, known: tuple[str, ...], *, key: str) -> None:
    """Raise KeyProblem for a teacher that the stage is not given."""
    unknown = sorted(set(recipe.objective.roles()) - set(known))
    if unknown and "teacher" not in known and "teacher" in unknown:
        raise KeyProblem("teacher", f"is missing: {key}.objective {recipe.objective.kind} learns from one")
    if unknown:
        raise KeyProblem(
            f"{key}.objective.teachers",
            f"names {', '.join(unknown)}, but this stage has {', '.join(known)}; a student may have further_teachers",
        )


AnyPipeline = Annotated[Retrain | Distill | Compress, Field(discriminator="flow")]


class Project(Section):
    """The whole of pipelines.yaml with one profile applied to each pipeline."""

    datasets: dict[Name, Dataset]
    pipelines: dict[Name, AnyPipeline]
