"""``datasets:`` of pipelines.yaml: where samples come from, what the gates demand, and which splits exist."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from vitops.config.base import KeyProblem, Section

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Task = Literal["classification"]
"""The task kinds: modules of ``vitops.data.kinds`` and ``vitops.data.gates``."""


class ArraysSource(Section):
    """An ``.npz`` file (never unpickled): ``images`` (N, H, W) or (N, H, W, C) uint8 and ``labels`` (N,) integers."""

    implementation: ClassVar[str] = "vitops.data.sources.arrays:ArraysReader"
    kind: Literal["arrays"] = "arrays"
    path: str = Field(min_length=1)
    """File, relative to the project root."""
    image_size: int | None = Field(None, ge=1, le=4096)
    """Side of the square PNG each image is scaled to (bicubic); null keeps the stored size."""
    maximum: int = Field(255, ge=1, le=255)
    """The array value that stands for white."""
    licence: str = "unknown"


class ArchiveSource(Section):
    """A tar or zip of class folders: ``[.../][subset/]<class>/<file>.{jpg,jpeg,png}``."""

    implementation: ClassVar[str] = "vitops.data.sources.archive:ArchiveReader"
    kind: Literal["archive"] = "archive"
    path: str = Field(min_length=1)
    """The .tar or .zip file (or a link to it), relative to the project root."""
    licence: str = "unknown"


class FolderSource(Section):
    """A folder of class folders: ``[subset/]<class>/<file>.{jpg,jpeg,png}``."""

    implementation: ClassVar[str] = "vitops.data.sources.folder:FolderReader"
    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1)
    """The folder, relative to the project root."""
    licence: str = "unknown"


Source = Annotated[ArraysSource | ArchiveSource | FolderSource, Field(discriminator="kind")]


class Gates(Section):
    """What the sample table must satisfy before anything is trained on it."""

    min_rows: int = Field(1, ge=1)
    """Fewest samples."""
    classes: int | None = Field(None, ge=2)
    """Exact number of classes; null accepts what the source has (at least 2)."""
    labels: tuple[str, ...] | None = None
    """Exact set of class names; null accepts any."""
    min_per_class: int = Field(1, ge=1)
    """Fewest samples of every class."""
    min_side: int = Field(1, ge=1)
    """Smallest allowed width and height, in pixels."""
    max_side: int = Field(8192, ge=1)
    """Largest allowed width and height, in pixels."""
    duplicates: Literal["fail", "warn"] = "fail"
    """What exact duplicates (same bytes or same pixels) do."""

    @model_validator(mode="after")
    def _consistent(self) -> "Gates":
        if self.min_side > self.max_side:
            raise KeyProblem("min_side", f"must not exceed max_side ({self.max_side}), got {self.min_side}")
        if self.labels is not None and len(set(self.labels)) < len(self.labels):
            raise KeyProblem("labels", "names a class twice")
        if self.labels is not None and self.classes not in {None, len(self.labels)}:
            raise KeyProblem("classes", f"must be {len(self.labels)}, the number of labels, got {self.classes}")
        return self


class SubsetTest(Section):
    """The test set is the source's own subset folder (``test``)."""

    kind: Literal["subset"] = "subset"
    name: str = "test"


class PerClassTest(Section):
    """The test set is drawn, balanced, by keyed rank."""

    kind: Literal["per_class"] = "per_class"
    count: int = Field(ge=1)
    """Test images of each class."""


TestSet = Annotated[SubsetTest | PerClassTest, Field(discriminator="kind")]


class HoldoutSplit(Section):
    """Train, validation and test by keyed rank; nothing is thrown away."""

    implementation: ClassVar[str] = "vitops.data.splits.holdout:holdout"
    kind: Literal["holdout"] = "holdout"
    seed: int = Field(0, ge=0, lt=2**32)
    test: TestSet = SubsetTest()
    val_per_class: int = Field(50, ge=1)
    """Validation images of each class (fewer where a class has fewer)."""


class LongtailSplit(Section):
    """A long-tailed train set (exp or step); validation comes from images that the selection left out."""

    implementation: ClassVar[str] = "vitops.data.splits.longtail:longtail"
    kind: Literal["longtail"] = "longtail"
    seed: int = Field(0, ge=0, lt=2**32)
    imbalance: Literal["exp", "step"] = "exp"
    imbalance_factor: float = Field(100.0, json_schema_extra={"minimum": 1})
    """IF = largest over smallest class count, at least 1 (write 100, not 0.01)."""
    n_max: int | None = Field(None, ge=1)
    """Images of the largest class; null takes samples / classes, as the official code does."""
    selection: Literal["keyed", "official"] = "keyed"
    """``official``: the papers' RandomState shuffle; ``keyed``: rank by digest, stable under additions and erasures."""
    test: TestSet = SubsetTest()
    val_per_class: int = Field(50, ge=1)
    """Validation images of each class (fewer where fewer are left out)."""

    @model_validator(mode="after")
    def _every_class_has_an_image(self) -> "LongtailSplit":
        factor = self.imbalance_factor
        if factor <= 0:
            raise KeyProblem("imbalance_factor", f"must be at least 1, got {factor:g}")
        if factor < 1:
            raise KeyProblem(
                "imbalance_factor",
                f"is the largest over the smallest class count, at least 1: write {1 / factor:g} instead of {factor:g}",
            )
        if self.n_max is not None and self.n_max < factor:
            raise KeyProblem("n_max", f"must be at least imbalance_factor ({factor:g}), or the smallest class is empty")
        return self


Split = Annotated[HoldoutSplit | LongtailSplit, Field(discriminator="kind")]


class Dataset(Section):
    """One dataset: its versions are made by DVC (ingest, validate, split)."""

    task: Task = "classification"
    """The task kind: which members a sample has, how they decode, which metrics apply."""
    source: Source
    shard_size: int = Field(1000, ge=1, le=100_000)
    """Samples of one tar."""
    gates: Gates = Gates()
    splits: dict[Name, Split]

    @model_validator(mode="after")
    def _has_a_split(self) -> "Dataset":
        if not self.splits:
            raise ValueError("needs at least one named split under splits:")
        return self
