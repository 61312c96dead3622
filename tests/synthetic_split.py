"""A tiny dataset on disk, made by hand: shards, sample table, split and manifests as the data plane lays them out."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vitops.store import manifest


def write_split(root, *, classes=3, train=24, val=6, test=6, size=16, shard_size=16, seed=0):
    """Write ``root/data/toy`` with one split called ``all``; return the split's folder."""
    rng = np.random.default_rng(seed)
    shards = root / "data" / "toy" / "shards"
    split = root / "data" / "toy" / "splits" / "all"
    split.mkdir(parents=True)
    samples = [_sample(rng, number, classes=classes, size=size) for number in range(train + val + test)]
    rows = _write_shards(shards, samples, shard_size=shard_size)
    pq.write_table(pa.Table.from_pylist(rows), shards / "samples.parquet")
    manifest.write(shards)
    parts = {"train": range(train), "val": range(train, train + val), "test": range(train + val, len(rows))}
    described = {
        "dataset": "toy",
        "task": "classification",
        "split": "all",
        "classes": [f"c{c}" for c in range(classes)],
    }
    for name, slots in parts.items():
        labels = [rows[slot]["label"] for slot in slots]
        table = pa.table({"slot": pa.array(slots, pa.uint32()), "label": pa.array(labels, pa.uint16())})
        pq.write_table(table, split / f"{name}.parquet")
        described[f"{name}_counts"] = np.bincount(labels, minlength=classes).tolist()
        joined = b"".join(bytes.fromhex(rows[slot]["sha256"]) for slot in slots)
        described.setdefault("members", {})[name] = hashlib.sha256(joined).hexdigest()
    (split / "split.json").write_text(json.dumps(described))
    manifest.write(split)
    return split


def _sample(rng, number, *, classes, size):
    label = number % classes
    pixels = rng.integers(0, 80, size=(size, size, 3), dtype=np.uint8)
    pixels[..., label % 3] += np.uint8(120)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", compress_level=0)
    return label, data.getvalue(), hashlib.sha256(str(number).encode()).hexdigest()[:20]


def _write_shards(shards, samples, *, shard_size):
    rows = []
    (shards / "0000").mkdir(parents=True)
    for first in range(0, len(samples), shard_size):
        name = f"0000/{first // shard_size:06d}.tar"
        with tarfile.open(shards / name, "w", format=tarfile.USTAR_FORMAT) as tar:
            for slot, (label, data, key) in enumerate(samples[first : first + shard_size], start=first):
                info = tarfile.TarInfo(f"{key}.png")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                offset = tar.offset - -(-len(data) // 512) * 512
                digest = hashlib.sha256(data).hexdigest()
                row = {"slot": slot, "key": key, "shard": name, "offset": offset, "size": len(data)}
                rows.append({**row, "sha256": digest, "label": label})
    return rows
