"""Reading a split: verified bytes, pure micro-batches."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from synthetic_split import write_split

from vitops.config.training import Preprocessing, Recipe
from vitops.data import loader
from vitops.data.loader import TrainStream, eval_batches, open_split
from vitops.errors import VerificationError, VitopsError
from vitops.store import manifest

RECIPE = {
    "objective": {"kind": "cross_entropy"},
    "epochs": 2,
    "micro_batches": 3,
    "micro_batch_size": 4,
    "preprocessing": {"size": 16},
    "augment": {"crop": {"kind": "pad", "padding": 2}, "erasing": 0.5, "randaugment": "rand-m9-mstd0.5-inc1"},
    "mixup": {},
    "optimizer": {"name": "sgd", "lr": 0.1},
}


@pytest.fixture
def split(tmp_path):
    return write_split(tmp_path)


def stream(split, **changes):
    return TrainStream(open_split(split), Recipe(**{**RECIPE, **changes}), 11)


def test_a_split_says_what_it_holds(split):
    reader = open_split(split)
    assert (reader.task, reader.classes, reader.train_counts) == ("classification", ["c0", "c1", "c2"], [8, 8, 8])
    assert [reader.size(subset) for subset in ("train", "val", "test")] == [24, 6, 6]


def test_a_micro_batch_is_a_pure_function_of_its_position(split):
    torch.manual_seed(1)
    one = stream(split).micro_batch(1, 1, 2, mix=True)
    np.random.seed(99)
    busy = stream(split)
    busy.micro_batch(0, 0, 0, mix=False)
    two = busy.micro_batch(1, 1, 2, mix=True)
    assert one.keys() == two.keys() == {"input", "target", "mixed"}
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_loading_leaves_the_global_randomness_alone(split):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    stream(split).micro_batch(0, 0, 0, mix=True)
    assert torch.equal(torch.rand(3), expected)


def test_an_epoch_visits_every_sample_once(split):
    ordered = stream(split)
    assert ordered.steps_per_epoch == 2
    seen = np.concatenate([ordered.indices(0, step, m) for step in range(2) for m in range(3)])
    assert np.array_equal(np.sort(seen), np.arange(24))


def test_repeats_put_copies_into_different_micro_batches(split):
    repeated = stream(split, repeats=3)
    step = np.stack([repeated.indices(0, 1, m) for m in range(3)])  # (micro-batches, samples)
    assert (step == step[0]).all()
    assert len(set(step[0].tolist())) == 4
    first, second = (repeated.micro_batch(0, 1, m, mix=False) for m in (0, 1))
    assert torch.equal(first["target"], second["target"])
    assert not torch.equal(first["input"], second["input"])


def test_shapes_and_mixing(split):
    plain = stream(split).micro_batch(0, 0, 0, mix=False)
    assert plain["input"].shape == (4, 3, 16, 16)
    assert plain["input"].dtype == torch.float32
    assert "mixed" not in plain
    mixed = stream(split).micro_batch(0, 0, 0, mix=True)["mixed"]
    assert mixed.shape == (4, 3)
    assert torch.allclose(mixed.sum(1), torch.ones(4))


def test_evaluation_is_clean_and_in_index_order(split):
    reader = open_split(split)
    batches = list(eval_batches(reader, "test", Preprocessing(size=16), batch_size=4))
    assert [len(batch["target"]) for batch in batches] == [4, 2]
    assert torch.equal(torch.cat([batch["target"] for batch in batches]), torch.from_numpy(reader.labels("test")))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(reader.decoded("test", 0).astype(np.float32))
    assert torch.allclose(batches[0]["input"][0], ((pixels / 255 - mean) / std).permute(2, 0, 1), atol=1e-5)


def test_evaluation_can_be_asked_for_some_samples(split):
    reader = open_split(split)
    (batch,) = eval_batches(reader, "train", Preprocessing(size=16), indices=np.array([5, 2]))
    assert batch["target"].tolist() == reader.labels("train")[[5, 2]].tolist()


def test_a_reader_pickles_without_its_maps_and_cache(split):
    reader = open_split(split)
    image = reader.decoded("train", 3)
    data = pickle.dumps(reader)
    assert len(data) < 5000
    assert np.array_equal(pickle.loads(data).decoded("train", 3), image)


def test_the_cache_changes_nothing_but_time(split, monkeypatch):
    cached = stream(split).micro_batch(0, 1, 0, mix=True)["input"]
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    assert torch.equal(stream(split).micro_batch(0, 1, 0, mix=True)["input"], cached)


def test_augmentation_does_not_write_into_the_cache(split):
    used = stream(split)
    before = [used._reader.decoded("train", index).copy() for index in range(24)]
    for step in range(2):
        for m in range(3):
            used.micro_batch(0, step, m, mix=True)
    assert all(np.array_equal(used._reader.decoded("train", i), image) for i, image in enumerate(before))


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_of_a_shard_is_found(split):
    shard = split.parent.parent / "shards" / "0000" / "000000.tar"
    flip(shard, 700)
    with pytest.raises(VerificationError, match=r"sample [0-9a-f]{20} in .*000000\.tar is altered"):
        open_split(split).decoded("train", 0)


def test_a_shard_cut_short_is_found_by_any_of_its_samples(split):
    shard = split.parent.parent / "shards" / "0000" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(VerificationError, match=r"0000/000000\.tar: the file is altered"):
        open_split(split).decoded("train", 0)


def test_a_flipped_byte_is_found_though_the_manifest_was_rewritten(split):
    shards = split.parent.parent / "shards"
    flip(shards / "0000" / "000000.tar", 700)
    manifest.write(shards)
    with pytest.raises(VerificationError, match=r"sample [0-9a-f]{20} in .*000000\.tar is altered"):
        open_split(split).decoded("train", 0)


@pytest.mark.parametrize("name", ["train.parquet", "split.json"])
def test_an_altered_split_is_found(name, split):
    with (split / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(VerificationError, match=name):
        open_split(split).size("train")


def test_another_sample_table_is_found(split):
    shards = split.parent.parent / "shards"
    table = pq.read_table(shards / "samples.parquet")
    digests = table["sha256"].to_pylist()
    digests[0], digests[1] = digests[1], digests[0]
    pq.write_table(table.set_column(5, "sha256", pa.array(digests)), shards / "samples.parquet")
    with pytest.raises(VerificationError, match="not the table that"):
        open_split(split).size("train")


def test_slots_are_found_by_number_where_earlier_samples_left_the_table(split):
    before = open_split(split).decoded("test", 0)
    shards = split.parent.parent / "shards"
    test = pq.read_table(split / "test.parquet")["slot"].to_pylist()
    table = pq.read_table(shards / "samples.parquet")
    pq.write_table(
        table.filter(pc.is_in(table["slot"], pa.array(test, table["slot"].type))), shards / "samples.parquet"
    )
    manifest.write(shards)
    assert np.array_equal(open_split(split).decoded("test", 0), before)
    with pytest.raises(VerificationError, match="does not hold every slot"):
        open_split(split).size("train")


def test_a_missing_shards_folder_is_named(split):
    shards = split.parent.parent / "shards"
    shards.rename(shards.with_name("elsewhere"))
    with pytest.raises(VerificationError, match="shards"):
        open_split(split)


def test_too_few_samples_for_a_step_is_an_error_with_the_counts(split):
    with pytest.raises(VitopsError, match=r"24 training samples, fewer than one step of .* = 3 x 10"):
        stream(split, micro_batch_size=10)
