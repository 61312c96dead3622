"""From the start of a loader in the middle of an epoch to its first batch.

The same 12,288 pictures of 32 pixels lie in tar shards (vitops, webdataset, torchdata through the offset index) and
in the peers' own formats (litdata, mosaicml-streaming). Each loader is asked for the batch at the start, at 10, 50
and 90 % of an epoch, each time in a fresh process, forked from one that has imported everything and has read a small
set, so that imports do not count. Decoded batches of 128 are compared; vitops also augments its own and hashes what
it reads. The loaders take turns. Peers resume as their documents say: a state saved at that position, or reading and
discarding.

    make .venv/bench
    .venv/bin/python benchmarks/speed/resume.py [--samples N] [--runs N]

A peer that is not installed or cannot be imported is named in ``not_measured``, with the reason. The last line is one
JSON object; milliseconds are medians; ``ratio`` is the fastest peer's slowest position to ours; ``holds`` says that
every loader was measured, that every position of ours is within ``bound`` and that the slowest takes at most half as
long again as the fastest (noise of a busy machine included).
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
POSITIONS = (0.0, 0.1, 0.5, 0.9)
BATCH, SIDE, SEED = 128, 32, 0
BOUND_MS, SPREAD = 50.0, 1.5
DISTRIBUTIONS = {
    "vitops": "vitops",
    "webdataset": "webdataset",
    "torchdata": "torchdata",
    "litdata": "litdata",
    "mosaicml": "mosaicml-streaming",
}
Loader = Callable[[int], Any]
"""Batch number -> the batch there, by a loader that is made anew."""


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=12_288)
    parser.add_argument("--runs", type=int, default=9, help="fresh processes for each loader and position")
    parser.add_argument("--serve", nargs=2, metavar=("LOADER", "FOLDER"), help="internal: measure one loader")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], Path(arguments.serve[1]))
        return
    absent = {name: why for name, package in DISTRIBUTIONS.items() if (why := missing(package))}
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), absent, samples=arguments.samples, runs=arguments.runs)
    print(json.dumps(figures))
    sys.exit(0 if figures["holds"] else 1)


def missing(package: str) -> str:
    """Why a distribution cannot take part, or nothing."""
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed: `make .venv/bench` brings it"
    return ""


def measure(folder: Path, absent: dict[str, str], *, samples: int, runs: int) -> dict[str, Any]:
    """The figures of all loaders, in turns."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from synthetic_split import write_split

    for name, count in (("large", samples), ("small", 4 * BATCH)):
        write_split(folder / name, classes=10, train=count, val=10, test=10, size=SIDE, shard_size=2048)
    servers = {name: _server(name, folder) for name in DISTRIBUTIONS if name not in absent}
    for name, server in list(servers.items()):
        if (sentence := _answer(server)) != "ready":
            absent[name] = sentence
            servers.pop(name).wait()
    batches = [int(share * (samples // BATCH)) for share in POSITIONS]
    found: dict[str, list[list[float]]] = {name: [[] for _ in batches] for name in servers}
    for _ in range(runs):
        for place, batch in enumerate(batches):
            for name, server in servers.items():
                found[name][place].append(float(_ask(server, batch)))
    for server in servers.values():
        assert server.stdin is not None
        server.stdin.close()
        server.wait()
    return summary({name: [statistics.median(values) for values in rows] for name, rows in found.items()}, absent)


def summary(medians: dict[str, list[float]], absent: dict[str, str]) -> dict[str, Any]:
    """Print a table; the figures as one document."""
    print(f"{'first batch, ms':20}" + "".join(f"{f'at {share:.0%}':>10}" for share in POSITIONS))
    for name, row in medians.items():
        print(f"{name:20}" + "".join(f"{value:10.1f}" for value in row))
    for name, why in absent.items():
        print(f"{name:20} not measured: {why}")
    rows = {
        name: dict(zip(map(str, POSITIONS), (round(x, 2) for x in row), strict=True)) for name, row in medians.items()
    }
    ours, peers = medians["vitops"], [max(row) for name, row in medians.items() if name != "vitops"]
    return {
        "milliseconds": rows,
        "not_measured": absent,
        "ratio": round(min(peers) / max(ours), 2) if peers else None,
        "spread": round(max(ours) / min(ours), 2),
        "bound": {"milliseconds": BOUND_MS, "spread": SPREAD},
        "holds": set(medians) == set(DISTRIBUTIONS) and max(ours) <= min(BOUND_MS, SPREAD * min(ours)),
    }


def _server(name: str, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--serve", name, str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _answer(server: "subprocess.Popen[str]") -> str:
    """The next line of ours; libraries may print lines of their own."""
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("> "):
            return line[2:].strip()
    return "ended without an answer"


def _ask(server: "subprocess.Popen[str]", batch: int) -> str:
    assert server.stdin is not None
    print(batch, file=server.stdin, flush=True)
    return _answer(server)


def serve(name: str, folder: Path) -> None:
    """Import one loader, warm it on the small set, then answer batch numbers with milliseconds."""
    import torch

    torch.set_num_threads(1)
    try:
        make: Callable[[Path], Loader] = {
            "vitops": vitops_loader,
            "webdataset": webdataset_loader,
            "torchdata": torchdata_loader,
            "litdata": litdata_loader,
            "mosaicml": mosaicml_loader,
        }[name]
        loader = make(folder / "large")
        warm = make(folder / "small")
        prepare(warm, 1)
        warm(1)
    except ImportError as error:
        print(f"> cannot be imported: {error}", flush=True)
        return
    print("> ready", flush=True)
    for line in sys.stdin:
        prepare(loader, int(line))
        print(f"> {timed(loader, int(line))}", flush=True)


def prepare(loader: Loader, batch: int) -> None:
    """Have what a peer needs to resume there; a run that was killed would have had it on disk."""
    if isinstance(loader, Resumed):
        loader.prepare(batch)


def timed(loader: Loader, batch: int) -> float:
    """Milliseconds that a fresh process takes from its first instruction to the batch."""
    return float(in_child(lambda: _timed(loader, batch)))


def _timed(loader: Loader, batch: int) -> str:
    started = time.perf_counter()
    loader(batch)
    return str(1000 * (time.perf_counter() - started))


def in_child(work: Callable[[], str]) -> str:
    """The text that ``work`` returns in a forked child."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as stream:
            stream.write(work())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return text


def vitops_loader(folder: Path) -> Loader:
    """One step of four micro-batches of 32: read, hashed, decoded, augmented."""
    import vitops.data.kinds.classification  # noqa: F401 -- imported by name when a split is opened
    from vitops.config.training import Recipe
    from vitops.data.loader import TrainStream, open_split

    recipe = Recipe.model_validate(
        {
            "objective": {"kind": "cross_entropy"},
            "epochs": 2,
            "micro_batches": 4,
            "micro_batch_size": BATCH // 4,
            "preprocessing": {"size": SIDE},
            "optimizer": {"name": "sgd", "lr": 0.1},
        }
    )

    def batch(number: int) -> Any:
        stream = TrainStream(open_split(folder / "data/toy/splits/all"), recipe, SEED)
        return [stream.micro_batch(1, number, m, mix=True) for m in range(4)]

    return batch


def webdataset_loader(folder: Path) -> Loader:
    """A stock pipeline over the same tars; what lies before the position is read and discarded."""
    os.environ["WDS_SECURE"] = "1"
    import webdataset

    shards = [str(path) for path in sorted((folder / "data/toy/shards").rglob("*.tar"))]

    def batch(number: int) -> Any:
        raw = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        rest = itertools.islice(iter(raw), number * BATCH, (number + 1) * BATCH)
        return decoded(sample["png"] for sample in rest)

    return batch


def torchdata_loader(folder: Path) -> Loader:
    """StatefulDataLoader, shuffled, over the same members by their offsets; its state is loaded."""
    import numpy as np
    import pyarrow.parquet as pq
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    shards = folder / "data/toy/shards"

    class Members(torch.utils.data.Dataset[bytes]):
        def __init__(self) -> None:
            table = pq.read_table(shards / "samples.parquet", columns=["shard", "offset", "size"])
            self.shards = table["shard"].to_pylist()
            self.offsets, self.sizes = table["offset"].to_numpy(), table["size"].to_numpy()
            self.maps = {name: np.memmap(shards / name, dtype=np.uint8, mode="r") for name in set(self.shards)}

        def __len__(self) -> int:
            return len(self.shards)

        def __getitem__(self, index: int) -> bytes:
            start = self.offsets[index]
            return self.maps[self.shards[index]][start : start + self.sizes[index]].tobytes()

    def loader() -> Any:
        return StatefulDataLoader(
            Members(), batch_size=BATCH, shuffle=True, num_workers=0, collate_fn=list, drop_last=True
        )

    return Resumed(loader, decoded)


def litdata_loader(folder: Path) -> Loader:
    """StreamingDataLoader over chunks of its own; its state is loaded."""
    import litdata
    from litdata.streaming.writer import BinaryWriter

    chunks = folder / "litdata"
    if not chunks.exists():
        chunks.mkdir()
        writer = BinaryWriter(str(chunks), chunk_bytes="8MB")
        for number, data in enumerate(members(folder)):
            writer.add_item(number, data)
        writer.done()
        writer.merge()

    def loader() -> Any:
        dataset = litdata.StreamingDataset(str(chunks), shuffle=True, seed=SEED)
        return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=list)

    return Resumed(loader, decoded)


def mosaicml_loader(folder: Path) -> Loader:
    """StreamingDataLoader over MDS shards of its own; its state is loaded."""
    import vitops  # noqa: F401 -- first, for it mends torchvision, which streaming imports

    # isort: split
    from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

    shards = folder / "mds"
    if not shards.exists():
        with MDSWriter(out=str(shards), columns={"png": "bytes"}) as writer:
            for data in members(folder):
                writer.write({"png": data})

    def loader() -> Any:
        dataset = StreamingDataset(
            local=str(shards),
            batch_size=BATCH,
            shuffle=True,
            shuffle_seed=SEED,
            num_canonical_nodes=1,
            predownload=20_000,
        )
        return StreamingDataLoader(  # of a dict, unlike a list, it knows how many samples it has given
            dataset, batch_size=BATCH, num_workers=0, collate_fn=lambda rows: {"png": [row["png"] for row in rows]}
        )

    return Resumed(loader, lambda batch: decoded(batch["png"]))


class Resumed:
    """A loader with ``state_dict``: the state of a position is taken once and loaded for each measurement."""

    def __init__(self, loader: Callable[[], Any], decode: Callable[[Any], Any]) -> None:
        self._loader, self._decode = loader, decode
        self._states: dict[int, Any] = {}

    def prepare(self, number: int) -> None:
        """Have the state after that many batches at hand, as its text in JSON."""
        if number and number not in self._states:
            self._states[number] = in_child(lambda: json.dumps(self._state(number), default=_plain))

    def _state(self, number: int) -> Any:
        source = self._loader()
        batches = iter(source)
        for _ in range(number):
            next(batches)
        return source.state_dict()

    def __call__(self, number: int) -> Any:
        source = self._loader()
        if number:
            source.load_state_dict(json.loads(self._states[number], object_hook=_tensor))
        return self._decode(next(iter(source)))


def _plain(value: Any) -> Any:
    """A generator's state as JSON."""
    return {"tensor": value.tolist()}


def _tensor(value: dict[str, Any]) -> Any:
    import torch

    return torch.tensor(value["tensor"], dtype=torch.uint8) if value.keys() == {"tensor"} else value


def members(folder: Path) -> list[bytes]:
    """The pictures' bytes in the order of the shards."""
    from vitops.data.loader import open_split

    reader = open_split(folder / "data/toy/splits/all")
    return [reader.read("train", index) for index in range(reader.size("train"))]


def decoded(pictures: Any) -> Any:
    """(B, H, W, 3) uint8."""
    import io

    import numpy as np
    from PIL import Image

    batch = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in pictures])
    assert batch.shape == (BATCH, SIDE, SIDE, 3), batch.shape
    return batch


if __name__ == "__main__":
    main()
