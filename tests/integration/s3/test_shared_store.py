"""A store in a bucket, seen from two homes: what one publishes the other reads; what is altered is found and healed."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_faults import error, flipped, lost

from vitops.errors import UsageError, VerificationError, VitopsError
from vitops.lineage.receipts import statement
from vitops.lineage.shared_ledger import SharedLedger
from vitops.lineage.verify import verify
from vitops.plan.code.digest import CodeDigest
from vitops.store import manifest
from vitops.store.bucket import blob_name, manifest_name
from vitops.store.job import Outcome
from vitops.store.manifest import FileEntry
from vitops.store.refs import Ref
from vitops.store.shared import SharedStore, copies_of

GIB = 1 << 30
FILES = {"weights": b"w" * 5000, "sub/model.json": b"{}\n"}


def filled(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(s3, tmp_path):
    """Opens a store by the name of its home."""
    return lambda name, cache_limit=GIB: SharedStore(tmp_path / name, s3.objects(), cache_limit=cache_limit)


@pytest.fixture
def ledger(s3, tmp_path):
    """Opens the ledger of a home."""
    return lambda name: SharedLedger(tmp_path / name, s3.objects())


@pytest.fixture
def published(home, tmp_path):
    """Digest of an artifact that home ``one`` published."""
    return home("one").publish(filled(tmp_path / "out"), "train").digest


def receipt(number: int) -> dict:
    return statement(
        kind="train",
        stage="teacher",
        pipeline="p",
        key=f"{number:064x}",
        subject=Ref(kind="train", digest=f"{number:064x}"),
        files=[],
        inputs={},
        parameters={},
        code=CodeDigest("c" * 64, {}),
        environment={},
        outcome=Outcome(),
        started=0.0,
        seconds=1.0,
        who="me",
        host="here",
        seed=0,
        adopted=False,
        configuration={},
    )


def weights(home, digest: str) -> str:
    """Name of the blob of ``weights``."""
    return blob_name(next(entry.sha256 for entry in home("one").manifest(digest) if entry.path == "weights"))


def test_what_one_home_publishes_another_reads(home, published):
    two = home("two")
    assert two.present(published)
    assert two.digests() == [published]
    assert two.find(published[:8]) == published
    assert content(two.materialize(published)) == FILES
    assert two.read(published, "sub/model.json") == FILES["sub/model.json"]
    assert two.read(published, "none") is None


def test_what_is_here_is_not_downloaded_again(s3, home, published):
    home("two").materialize(published)
    s3.proxy.forget()
    home("two").materialize(published)
    assert s3.proxy.count("GET", "/blobs/") == 0


def test_blobs_are_there_before_the_manifest_and_a_failed_publish_names_nothing(s3, home, tmp_path):
    s3.proxy.strike("PUT", "/blobs/", error(503, "SlowDown"))
    with pytest.raises(VitopsError):
        home("one").publish(filled(tmp_path / "out"), "train")
    assert home("one").digests() == []
    s3.proxy.forget()
    home("one").publish(filled(tmp_path / "out"), "train")
    puts = [path for method, path in s3.proxy.asked if method == "PUT"]
    assert ["/manifests/" in path for path in puts] == [False, False, True]


def test_an_unknown_artifact_is_named_with_the_bucket(s3, home):
    with pytest.raises(UsageError, match=f"no artifact {'0' * 64} in {s3.url}"):
        home("one").materialize("0" * 64)


@pytest.mark.parametrize("damage", [None, b"", b"w" * 4999 + b"v"])
def test_a_damaged_blob_is_noticed_by_a_reader_and_healed_by_publishing(s3, home, published, tmp_path, damage):
    name = weights(home, published)
    s3.delete(name) if damage is None else s3.put(name, damage)
    with pytest.raises(VerificationError, match=f"{s3.url}/{name}"):
        home("two").materialize(published)
    assert not home("two").present(published)
    home("two").publish(tmp_path / "out", "train")
    assert home("two").present(published)
    assert s3.get(name) == FILES["weights"]
    assert content(home("three").materialize(published)) == FILES


def test_a_damaged_manifest_is_noticed_and_healed_by_publishing(s3, home, published, tmp_path):
    name = manifest_name(published)
    before = s3.get(name)
    s3.put(name, before.replace(b"weights", b"WEIGHTS"))
    assert not home("two").present(published)
    with pytest.raises(VerificationError, match=f"{s3.url}/{name}"):
        home("two").materialize(published)
    home("two").publish(tmp_path / "out", "train")
    assert s3.get(name) == before


def test_a_copy_that_is_damaged_here_is_replaced_from_the_bucket(home, published):
    one = home("one")
    for path in [path for path in [*one.blobs.rglob("*"), *one.manifests.rglob("*")] if path.is_file()]:
        path.chmod(0o644)
        path.write_bytes(b"damaged")
    assert one.present(published)
    assert one.read(published, "weights") == FILES["weights"]
    assert content(one.materialize(published)) == FILES


def test_a_byte_flipped_on_its_way_is_never_handed_out(s3, home, published):
    s3.proxy.strike("GET", "/objects/", flipped, times=2)
    assert content(home("two").materialize(published)) == FILES
    s3.proxy.forget()
    s3.proxy.strike("GET", "/blobs/", flipped)
    with pytest.raises(VerificationError):
        home("three").materialize(published)
    assert not (home("three").cache / "artifacts" / published).exists()


def test_what_is_discarded_is_gone_but_for_what_others_need(s3, home, published, tmp_path):
    other = home("two").publish(filled(tmp_path / "other", {"weights": FILES["weights"]}), "train").digest
    home("two").discard(published)
    assert home("one").digests() == [other]
    assert not home("one").present(published)
    assert content(home("three").materialize(other)) == {"weights": FILES["weights"]}
    assert len([name for name in s3.names() if "/blobs/" in name]) == 1


def test_two_homes_continue_one_ledger(ledger):
    one, two = ledger("one"), ledger("two")
    assert one.append(receipt(0)) == 0
    assert two.by_key(f"{0:064x}").sequence == 0
    assert two.append(receipt(1)) == 1
    assert one.by_key(f"{1:064x}").sequence == 1
    assert one.append(receipt(1)) == 2
    assert two.by_digest(f"{1:064x}").sequence == 2
    assert [entry.sequence for entry in ledger("three").entries()] == [0, 1, 2]
    assert one.read_original(2).previous == one.read_original(1).sha256


def test_racing_homes_lose_no_receipt_and_number_without_gaps(ledger):
    barrier = threading.Barrier(4)

    def appended(name: int) -> list[int]:
        mine = ledger(str(name))
        barrier.wait()
        return [mine.append(receipt(10 * name + turn)) for turn in range(5)]

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for run in pool.map(appended, range(4)) for number in run]
    assert sorted(numbers) == list(range(20))
    fresh = ledger("fresh")
    assert {entry.key for entry in fresh.entries()} == {
        f"{10 * name + turn:064x}" for name in range(4) for turn in range(5)
    }
    assert all(fresh.read_original(n).previous == fresh.read_original(n - 1).sha256 for n in range(1, 20))


def test_a_receipt_whose_answer_was_lost_stands_once(s3, ledger):
    s3.proxy.strike("PUT", "/ledger/", lost, times=1)
    assert ledger("one").append(receipt(0)) == 0
    assert ledger("two").sequences() == [0]


def test_a_question_asks_for_what_is_new_alone(s3, ledger):
    one = ledger("one")
    for number in range(5):
        one.append(receipt(number))
    assert one.by_key(f"{4:064x}").sequence == 4
    s3.proxy.forget()
    assert one.by_key(f"{3:064x}").sequence == 3
    assert len(s3.proxy.asked) == 1
    s3.proxy.forget()
    assert ledger("one").by_key(f"{3:064x}").sequence == 3
    assert s3.proxy.count("GET", "/ledger/0") == 1  # whether the copies are this bucket's


def test_copies_of_a_bucket_that_was_made_anew_are_not_believed(s3, ledger):
    ledger("one").append(receipt(0))
    assert ledger("one").by_key(f"{0:064x}").sequence == 0
    s3.delete("ledger/00000000.json")
    assert ledger("one").by_key(f"{0:064x}") is None
    ledger("two").append(receipt(1))
    assert [entry.key for entry in ledger("one").entries()] == [f"{1:064x}"]


def test_a_damaged_receipt_is_as_if_it_were_not_there_until_it_is_restored(s3, ledger):
    for number in range(2):
        ledger("one").append(receipt(number))
    whole = s3.get("ledger/00000001.json")
    s3.put("ledger/00000001.json", whole[:-1])
    assert ledger("two").by_key(f"{1:064x}") is None
    assert ledger("two").append(receipt(2)) == 2
    s3.put("ledger/00000001.json", whole)
    assert ledger("two").by_key(f"{1:064x}").sequence == 1


def test_verify_names_whatever_is_altered_in_the_bucket(s3, home, ledger, published, tmp_path, monkeypatch):
    monkeypatch.setenv("VITOPS_STORE", s3.url)
    ledger("one").append(receipt(0))
    entries = [name for name in s3.names() if "ledger" not in name] + ["ledger/00000000.json"]
    missing = [str(problem.path) for problem in verify(tmp_path / "one", None)]
    assert missing == [f"{s3.url}/{manifest_name('0' * 64)}"]  # the receipt is about an artifact that never was
    for name in entries:
        before = s3.get(name)
        damaged = bytearray(before)
        damaged[len(before) // 2] ^= 1
        s3.put(name, bytes(damaged))
        found = [str(problem.path) for problem in verify(tmp_path / "one", None)]
        assert f"{s3.url}/{name}" in found
        s3.delete(name)
        problems = verify(tmp_path / "one", None)
        assert problems or name.startswith("ledger")
        s3.put(name, before)
    s3.put("objects/blobs/stray", b"")
    assert f"{s3.url}/objects/blobs/stray" in [problem.path for problem in verify(tmp_path / "one", None)]


def test_what_verify_found_altered_is_made_anew(s3, home, published, tmp_path, monkeypatch):
    monkeypatch.setenv("VITOPS_STORE", s3.url)
    name = weights(home, published)
    s3.put(name, b"v" * 5000)
    assert home("one").present(published)
    assert [str(problem.path) for problem in verify(tmp_path / "one", None)] == [f"{s3.url}/{name}"]
    assert not home("one").present(published)
    home("one").publish(tmp_path / "out", "train")
    assert home("one").present(published)
    assert verify(tmp_path / "one", None) == []


def test_verify_names_whatever_is_altered_in_a_shared_checkpoint(s3, tmp_path, monkeypatch):
    """Not in one whose upload came to no end, nor in one that is removed while it is read."""
    monkeypatch.setenv("VITOPS_STORE", s3.url)
    name = "checkpoints/key/e000000-s000000002-a000001"
    files = {"state.safetensors": b"tensors", "state.json": b"{}"}
    entries = [FileEntry(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    for path, data in (files | {"manifest.json": manifest.render(entries)}).items():
        s3.put(f"{name}/{path}", data)
    s3.put("checkpoints/key/e000000-s000000004-a000001/state.json", b"torn")
    s3.put("checkpoints/key/attempts/000001", b"ticket")
    assert verify(tmp_path / "one", None) == []
    for path in (*files, "manifest.json"):
        before = s3.get(f"{name}/{path}")
        s3.put(f"{name}/{path}", b"altered")
        assert [problem.path for problem in verify(tmp_path / "one", None)] == [f"{s3.url}/{name}/{path}"]
        s3.delete(f"{name}/{path}")
        assert len(verify(tmp_path / "one", None)) == (path in files)
        s3.put(f"{name}/{path}", before)

    def removed(forward):
        for path in ("manifest.json", *files):
            s3.delete(f"{name}/{path}")
        return forward()

    s3.proxy.strike("GET", "/state.json", removed, times=1)
    assert verify(tmp_path / "one", None) == []
    assert s3.proxy.rules[0].times == 0


def test_copies_stay_below_the_limit_and_those_in_use_stay(s3, home, tmp_path):
    one, two = home("one"), home("two", cache_limit=25_000)
    digests = []
    for number in range(4):
        files = {"weights": bytes([number]) * 10_000}
        digests.append(one.publish(filled(tmp_path / f"out{number}", files), "train").digest)
    folders = [two.materialize(digest) for digest in digests]
    assert all(folder.is_dir() for folder in folders)  # used by this process, whatever the limit
    assert [path for path in two.blobs.glob("*/*") if path.is_file()] == []
    later = home("two", cache_limit=25_000)
    del two
    later.materialize(digests[0])
    kept = [folder.name for folder in folders if folder.is_dir()]
    assert digests[0] in kept
    assert len(kept) <= 2
    assert content(later.materialize(digests[1])) == {"weights": bytes([1]) * 10_000}


def test_homes_that_change_buckets_mix_nothing_up(s3, home, published, tmp_path):
    elsewhere = type(s3)(f"{s3.prefix}-other", s3.proxy, s3.direct)
    assert copies_of(elsewhere.objects()) != copies_of(s3.objects())
    other = SharedStore(tmp_path / "one", elsewhere.objects(), cache_limit=GIB)
    assert other.digests() == []
    assert not other.present(published)
