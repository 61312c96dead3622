"""What somebody asks for when a pipeline runs: typed once, read by the command line, the flows and deployments."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class RunRequest(BaseModel):
    """Parameters of one run. Everything but ``pipeline`` has a default, so that a deployment needs only the name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: str
    """A name under pipelines: of pipelines.yaml."""
    root: Path = Path()
    """Project root (the folder with pipelines.yaml)."""
    home: Path | None = None
    """The store; null means ``VITOPS_HOME`` or ``.vitops`` in the project."""
    file: Path | None = None
    """Another pipelines file with the same datasets."""
    profile: str | None = None
    """A profile of the pipeline; null means its default."""
    overrides: tuple[str, ...] = ()
    """``a.b=c`` assignments relative to the pipeline."""
    until: str | None = None
    """Last stage to run."""
    workers: int | None = Field(None, ge=1)
    """Worker processes of training stages; null means the pipeline's resources."""
    allow_environment_change: bool = False
    """Go on from checkpoints that were written under another arithmetic, and mark the receipts; in no key."""
    run_id: str | None = None
    """Name of the run's folder in the store; null makes a new one."""
