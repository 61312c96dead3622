"""The DAG: which stages a pipeline has, from its resolved configuration alone.

Laws: ``stages`` is a pure function of the project; it is the only place that knows the DAG, and plan, run, explain, the
flows and the report read it. Stages come in an order in which every input is made before it is read. A stage's code
roots are its library function, the implementations that its own parameters select, those that rebuild what it reads,
and the configuration classes themselves; tasks and flows never count. All stages but the report are exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from vitops.config.base import Section
from vitops.config.datasets import Dataset
from vitops.config.models import Model
from vitops.config.pipelines import Compress, Distill, Pipeline, Project, Retrain
from vitops.config.pretrained import Pretrained, WeightsFile
from vitops.config.problems import did_you_mean
from vitops.config.training import Train
from vitops.errors import UsageError

JSON = dict[str, Any]
DATA_KINDS = ("ingest", "validate", "split")
DISTRIBUTED_KINDS = ("train", "prune")
"""Kinds that run on several workers; their count changes bits in ``fast`` mode alone."""

PRUNED_MODEL = "vitops.models.pruned_vit:build"
JOB = "vitops.store.job:Job"
"""What every stage of the model plane is called with: its methods run inside the stage, and no name leads to them."""
Rebuilt = type[Section] | str
"""What a model was built from: the class of its section, or what the artifact of that digest says."""

_FUNCTIONS = {
    "ingest": "vitops.data.ingest:ingest",
    "validate": "vitops.data.gates.suite:validate",
    "split": "vitops.data.splits.stage:split",
    "train": "vitops.training.stage:train",
    "convert": "vitops.training.convert:convert",
    "export": "vitops.compression.export:export",
    "evaluate": "vitops.evaluation.stage:evaluate",
    "package": "vitops.packaging.package:package",
    "report": "vitops.reporting.stage:report",
}
_TORCH = ("numpy", "pillow", "safetensors", "timm", "torch", "torchvision")
_ONNX = ("onnx", "onnxruntime", "protobuf")
_EXPORT = ("onnx-ir", "onnxscript")
_LIBRARIES: dict[str, tuple[str, ...]] = {
    "ingest": ("numpy", "pillow", "pyarrow"),
    "validate": ("great-expectations", "numpy", "pandas", "pillow", "pyarrow"),
    "split": ("numpy", "pyarrow"),
    "train": _TORCH,
    "convert": _TORCH,
    "prune": _TORCH,
    "export": (*_TORCH, *_ONNX, *_EXPORT),
    "quantize": (*_TORCH, *_ONNX),
    "evaluate": (*_TORCH, *_ONNX),
    "package": ("jinja2", "numpy", "onnxruntime", "pillow"),
    "report": (*_TORCH, *_ONNX, *_EXPORT, "jinja2"),
}


@dataclass(frozen=True)
class Stage:
    """One stage of a pipeline."""

    name: str
    """Unique in its pipeline, e.g. ``student`` or ``train@task-03``; in no key."""
    kind: str
    parameters: JSON
    """``{"config": ..., "seed": ...}``; of a data stage ``{"dataset": ..., "config": ...}``."""
    roots: tuple[str, ...]
    """Code roots ``module:attribute`` (or a module); the first one is the library function."""
    libraries: tuple[str, ...]
    """Distributions whose versions enter the key."""
    environment: JSON
    """Declared ``mode``, ``device``, ``threads``, and ``workers`` where they change bits."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role -> name of the stage whose output fills it."""
    pinned: Mapping[str, str] = field(default_factory=dict)
    """Role -> digest of an artifact that the configuration names."""
    rebuilds: tuple[str, ...] = ()
    """Digests of pinned models that it rebuilds: ``plan.pinned`` adds their architectures to ``roots``."""
    file: str | None = None
    """Path, from the project's folder or absolute, of a file that it reads too; its digest is a parameter, not this."""
    exactness: Literal["exact", "measured"] = "exact"
    resources: JSON = field(default_factory=dict)
    """The pipeline's ``resources``; only what ``environment`` repeats is in the key."""

    @property
    def is_data(self) -> bool:
        """Whether DVC owns this stage's output."""
        return self.kind in DATA_KINDS


def stages(project: Project, name: str) -> tuple[Stage, ...]:
    """All stages of pipeline ``name``, upstream first. Raises UsageError for an unknown pipeline, dataset or split."""
    pipeline = _named(project.pipelines, name, "pipeline", "pipelines")
    dataset = _named(project.datasets, pipeline.dataset, "dataset", "datasets")
    return (*_data_stages(pipeline, dataset), *_Flow(name, pipeline, dataset).stages())


def data_roots(dataset: Dataset, splits: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Code roots of ``ingest``, ``validate`` and ``split`` for these named splits of ``dataset``."""
    return {
        "ingest": _roots(_FUNCTIONS["ingest"], [dataset.source], "vitops.data.ingest:arrive"),
        "validate": _roots(_FUNCTIONS["validate"], [dataset.gates], f"vitops.data.gates.{dataset.task}:checks"),
        "split": _roots(_FUNCTIONS["split"], [dataset.splits[name] for name in splits]),
    }


def libraries(kind: str) -> tuple[str, ...]:
    """Distributions whose versions may change the output of a stage of this kind."""
    return _LIBRARIES[kind]


def architectures() -> tuple[type[Section], ...]:
    """Every class of ``model:`` sections: what a model that only a digest names may have been built from."""
    classes: tuple[type[Section], ...] = get_args(get_args(Model)[0])
    return classes


def rebuilding(model: type[Section]) -> tuple[str, ...]:
    """Code roots of what rebuilds a model of this section: the class that checks its arguments, the implementation."""
    found = (f"{model.__module__}:{model.__name__}", model.implementation)
    return tuple(root for root in found if root)


def task_kind(dataset: Dataset) -> str:
    """The module that knows this dataset's samples; imported by name at run time, so it is a root of its readers."""
    return f"vitops.data.kinds.{dataset.task}"


def _data_stages(pipeline: Pipeline, dataset: Dataset) -> tuple[Stage, ...]:
    split = _named(dataset.splits, pipeline.split, "split", f"datasets.{pipeline.dataset}.splits")
    roots = data_roots(dataset, [pipeline.split])
    source = {"source": dataset.source.parameters(), "shard_size": dataset.shard_size, "task": dataset.task}
    configs: dict[str, JSON] = {"ingest": source, "validate": dataset.gates.parameters(), "split": split.parameters()}
    inputs = {"ingest": (), "validate": ("ingest",), "split": ("ingest", "validate")}
    own = {"split": {"split": pipeline.split}}
    return tuple(
        Stage(
            name=kind,
            kind=kind,
            parameters={"dataset": pipeline.dataset, "config": configs[kind], **own.get(kind, {})},
            roots=roots[kind],
            libraries=_LIBRARIES[kind],
            environment={"mode": "exact", "device": "cpu", "threads": 1},
            inputs={role: role for role in inputs[kind]},
            resources=pipeline.resources.parameters(),
        )
        for kind in DATA_KINDS
    )


class _Flow:
    """The model plane of a pipeline: who reads whom."""

    def __init__(self, name: str, pipeline: Pipeline, dataset: Dataset) -> None:
        self._name, self._pipeline, self._kind = name, pipeline, task_kind(dataset)

    def stages(self) -> tuple[Stage, ...]:
        pipeline = self._pipeline
        if isinstance(pipeline, Retrain | Distill):
            return self._trained(pipeline)
        assert isinstance(pipeline, Compress), pipeline.dataset
        pinned = {"student": pipeline.student, "teacher": pipeline.teacher}
        return self._compressed(pipeline, {}, pinned, {role: (digest,) for role, digest in pinned.items()})

    def _trained(self, pipeline: Retrain | Distill) -> tuple[Stage, ...]:
        teacher = pipeline.teacher
        made = {"teacher": "teacher"} if isinstance(teacher, Train | Pretrained) else {}
        named = {"teacher": teacher} if isinstance(teacher, str) else {}
        models = {"student": (type(pipeline.student.model),), "teacher": _rebuilt(teacher)}
        inputs = {"student": "student", **made}
        trained = (
            *((self._stage("teacher", "train", teacher),) if isinstance(teacher, Train) else ()),
            *((self._converted("teacher", teacher),) if isinstance(teacher, Pretrained) else ()),
            self._stage(
                "student",
                "train",
                pipeline.student,
                inputs=made,
                pinned=named | pipeline.further_teachers,
                rebuilds=(*models["teacher"], *pipeline.further_teachers.values()),
            ),
        )
        if isinstance(pipeline, Retrain):
            return (*trained, *self._compressed(pipeline, inputs, named, models))
        both = (*models["student"], *models["teacher"])
        return (
            *trained,
            self._stage("evaluate", "evaluate", pipeline.evaluate, inputs=inputs, pinned=named, rebuilds=both),
        )

    def _converted(self, name: str, model: Pretrained) -> Stage:
        stage = self._stage(name, "convert", model)
        file = model.weights.file if isinstance(model.weights, WeightsFile) else None
        return replace(stage, parameters={"config": model.identity()}, file=file)

    def _compressed(
        self,
        pipeline: Retrain | Compress,
        inputs: dict[str, str],
        pinned: dict[str, str],
        models: Mapping[str, tuple[Rebuilt, ...]],
    ) -> tuple[Stage, ...]:
        """Everything from ``prune`` on; student and teacher come from stages (``inputs``) or are ``pinned``."""
        renamed = {"student": "model", "teacher": "teacher"}
        onnx = {"prune": "prune", "export": "export", "quantize": "quantize"}
        both, student = (*models["student"], *models["teacher"]), models["student"]
        return (
            self._stage(
                "prune",
                "prune",
                pipeline.prune,
                inputs={renamed[role]: stage for role, stage in inputs.items()},
                pinned={renamed[role]: digest for role, digest in pinned.items()},
                rebuilds=both,
            ),
            self._stage("export", "export", pipeline.export, inputs={"model": "prune"}, rebuilds=student),
            self._stage("quantize", "quantize", pipeline.quantize, inputs={"export": "export"}),
            self._stage("evaluate", "evaluate", pipeline.evaluate, inputs=inputs | onnx, pinned=pinned, rebuilds=both),
            self._stage("package", "package", None, inputs=onnx | {"evaluate": "evaluate"}, named=True),
            self._stage(
                "report",
                "report",
                pipeline.report,
                inputs=inputs | onnx | {"evaluate": "evaluate", "package": "package"},
                pinned=pinned,
                rebuilds=both,
            ),
        )

    def _stage(
        self,
        name: str,
        kind: str,
        config: Section | None,
        *,
        inputs: Mapping[str, str] | None = None,
        pinned: Mapping[str, str] | None = None,
        rebuilds: Sequence[Rebuilt] = (),
        named: bool = False,
    ) -> Stage:
        """A stage that reads the split, and rebuilds the models ``rebuilds`` from their artifacts.

        ``named``: its output names the pipeline, which therefore is one of its parameters.
        """
        sections = [] if config is None else config.sections()
        function = _FUNCTIONS.get(kind) or (config.implementation if config else None)
        assert function is not None, kind
        rebuilt = [root for model in rebuilds if not isinstance(model, str) for root in rebuilding(model)]
        pruned = [PRUNED_MODEL] if rebuilds and (kind != "train" or pinned) else []
        return Stage(
            name=name,
            kind=kind,
            parameters={
                "config": config.parameters() if config else {},
                "seed": self._pipeline.seed,
                **({"pipeline": self._name} if named else {}),
            },
            roots=_roots(function, sections, JOB, self._kind, *rebuilt, *pruned),
            libraries=_LIBRARIES[kind],
            environment=self._environment(kind),
            inputs={"split": "split", **(inputs or {})},
            pinned=dict(pinned or {}),
            rebuilds=tuple(model for model in rebuilds if isinstance(model, str)),
            exactness="measured" if kind == "report" else "exact",
            resources=self._pipeline.resources.parameters(),
        )

    def _environment(self, kind: str) -> JSON:
        resources = self._pipeline.resources
        distributed = kind in DISTRIBUTED_KINDS
        declared: JSON = {"device": resources.device, "threads": resources.threads, "mode": "exact"}
        if distributed and resources.mode == "fast":
            declared |= {"mode": "fast", "workers": resources.workers}
        return declared


def _rebuilt(teacher: Train | Pretrained | str | None) -> tuple[Rebuilt, ...]:
    if teacher is None:
        return ()
    return (teacher if isinstance(teacher, str) else type(teacher.model),)


def _roots(function: str, sections: Iterable[Section], *others: str) -> tuple[str, ...]:
    """``function`` first; then each section's class and implementation and the ``others``, each once."""
    found = {function: None}
    for section in (inner for outer in sections for inner in outer.sections()):
        found[f"{type(section).__module__}:{type(section).__name__}"] = None
        if section.implementation:
            found[section.implementation] = None
    return tuple(found | dict.fromkeys(others))


def _named(table: Mapping[str, Any], name: str, what: str, where: str) -> Any:
    if name not in table:
        raise UsageError(f"pipelines.yaml: {where}: no {what} '{name}'{did_you_mean(name, table)}")
    return table[name]
