"""One data stage of one dataset, as DVC calls it: reads its configuration file and its inputs, writes its outputs."""

from collections.abc import Callable
from pathlib import Path

from vitops.config.load import load, store_home
from vitops.data import arrivals, configured, source_file
from vitops.data.configured import IngestConfig, SplitConfig, ValidateConfig


def run(root: Path, dataset: str, stage: str) -> None:
    """Run ``configure``, ``arrive``, ``ingest``, ``validate`` or ``split``. Raises VitopsError."""
    _STAGES[stage](root, dataset, root / "data" / dataset)


def _configure(root: Path, dataset: str, folder: Path) -> None:
    configured.write(folder, load(root).dataset(dataset))


def _arrive(root: Path, dataset: str, folder: Path) -> None:
    from vitops.data.ingest import arrive

    config = configured.read(folder, "ingest", IngestConfig)
    source_file.locate(root, dataset, config.source)
    file = folder / "arrivals.json"
    arrivals.write(file, arrive(root, config, arrivals.read(file)))


def _ingest(root: Path, dataset: str, folder: Path) -> None:
    from vitops.data.ingest import ingest

    config = configured.read(folder, "ingest", IngestConfig)
    source_file.locate(root, dataset, config.source)
    ingest(root, dataset, config, known=arrivals.read(folder / "arrivals.json"), out=folder / "shards")


def _validate(root: Path, dataset: str, folder: Path) -> None:
    from vitops.data.gates.suite import validate

    config = configured.read(folder, "validate", ValidateConfig)
    failed = store_home(root) / "tmp" / f"gates-{dataset}.json"
    validate(folder / "shards", config, dataset=dataset, out=folder / "gates", failed=failed)


def _split(root: Path, dataset: str, folder: Path) -> None:
    from vitops.data.splits.stage import split

    config = configured.read(folder, "split", SplitConfig)
    split(folder / "shards", config, dataset=dataset, out=folder / "splits")


_STAGES: dict[str, Callable[[Path, str, Path], None]] = {
    "configure": _configure,
    "arrive": _arrive,
    "ingest": _ingest,
    "validate": _validate,
    "split": _split,
}
