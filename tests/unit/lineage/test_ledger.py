"""The ledger: dense, chained, indexed; damaged entries are never believed."""

import hashlib
import json
import multiprocessing

import pytest

from vitops.errors import Interrupted, UsageError
from vitops.lineage.ledger import START, Ledger
from vitops.lineage.verify import verify

A, B = "a" * 64, "b" * 64


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "home")


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def problems(ledger):
    return {problem.path.name: problem.sentence for problem in verify(ledger.folder.parent, None)}


def fill(ledger, small, count):
    for number in range(count):
        ledger.append(small(key=f"{number:064x}", digest=f"{number + 256:064x}"))


def test_entries_are_numbered_densely_and_name_the_bytes_before_them(ledger, small):
    assert [ledger.append(small(key=key)) for key in (A, B, A)] == [0, 1, 2]
    files = sorted(ledger.folder.iterdir())
    assert [path.name for path in files] == ["00000000.json", "00000001.json", "00000002.json"]
    previous = START
    for path in files:
        entry = json.loads(path.read_bytes())
        assert entry["previous"] == previous
        previous = hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_mode & 0o777 == 0o444


def test_by_key_and_by_digest_give_the_latest(ledger, small):
    ledger.append(small(key=A, digest="1" * 64))
    ledger.append(small(key=A, digest="2" * 64))
    ledger.append(small(key=B, digest="1" * 64))
    for fresh in (ledger, Ledger(ledger.folder.parent), Ledger(ledger.folder.parent)):
        assert fresh.by_key(A).digest == "2" * 64
        assert fresh.by_digest("1" * 64).sequence == 2
        assert fresh.by_digest("1" * 64, before=2).sequence == 0
        assert fresh.by_digest("1" * 64, before=0) is None
        assert fresh.by_key("9" * 64) is None


def test_an_open_ledger_sees_what_others_append(ledger, small):
    ledger.append(small(key=A))
    assert ledger.by_key(B) is None
    Ledger(ledger.folder.parent).append(small(key=B))
    assert ledger.by_key(B).sequence == 1


def test_the_index_is_used_and_rebuilt_when_lost_or_damaged(ledger, small, monkeypatch):
    fill(ledger, small, 20)
    assert ledger.by_key(f"{3:064x}").sequence == 3
    read, index = [], ledger.folder.parent / "cache/ledger.json"
    real = Ledger.read
    monkeypatch.setattr(Ledger, "read", lambda self, number: read.append(number) or real(self, number))
    assert Ledger(ledger.folder.parent).by_key(f"{7:064x}").sequence == 7
    assert read == [7]
    for damage in (b"", index.read_bytes().replace(b"3", b"4")):
        index.write_bytes(damage)
        assert Ledger(ledger.folder.parent).by_key(f"{3:064x}").sequence == 3


def test_an_index_of_another_ledger_is_not_believed(ledger, small, tmp_path):
    fill(ledger, small, 3)
    other = Ledger(tmp_path / "other")
    for key in (A, B, A):
        other.append(small(key=key))
    assert ledger.by_key(f"{1:064x}") and other.by_key(A)
    (tmp_path / "other/cache/ledger.json").replace(ledger.folder.parent / "cache/ledger.json")
    assert Ledger(ledger.folder.parent).by_key(f"{1:064x}").sequence == 1
    assert Ledger(ledger.folder.parent).by_key(A) is None


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("damage", [b"", b"[]", b"\xff", b'{"sequence":1}', b"[" * 100_000, None])
def test_a_damaged_latest_receipt_is_passed_over_and_believed_again_when_restored(ledger, small, damage, indexed):
    for _ in range(2):
        ledger.append(small(key=A))
    assert not indexed or ledger.by_key(A).sequence == 1
    path = ledger.path(1)
    good = path.read_bytes()
    overwrite(path, good.replace(b"ada", b"eve") if damage is None else damage)
    assert Ledger(ledger.folder.parent).by_key(A).sequence == 0
    assert "altered" in problems(ledger)[path.name]
    overwrite(path, good)
    assert Ledger(ledger.folder.parent).by_key(A).sequence == 1
    assert problems(ledger) == {}


def test_appending_after_a_damaged_head_does_not_bless_it(ledger, small):
    for _ in range(2):
        ledger.append(small(key=A))
    overwrite(ledger.path(1), ledger.path(1).read_bytes().replace(b"ada", b"eve"))
    assert ledger.append(small(key=B)) == 2
    assert "00000001.json" in problems(ledger)


def rewrite(ledger, number, change):
    """A forger's edit: the entry's own digest is made to fit."""
    from vitops.lineage.ledger import _render

    fields = json.loads(ledger.path(number).read_bytes())
    change(fields["statement"])
    overwrite(ledger.path(number), _render(number, fields["previous"], fields["statement"]))


def test_the_chain_shows_an_edit_made_to_fit(ledger, small):
    fill(ledger, small, 4)
    assert problems(ledger) == {}
    rewrite(ledger, 1, lambda statement: statement["predicate"].update(who="eve"))
    assert list(problems(ledger)) == ["00000002.json"]


def test_the_chain_shows_a_swap(ledger, small):
    fill(ledger, small, 4)
    one, two = ledger.path(1).read_bytes(), ledger.path(2).read_bytes()
    overwrite(ledger.path(1), two)
    overwrite(ledger.path(2), one)
    assert {"00000001.json", "00000002.json"} <= set(problems(ledger))


def test_the_chain_shows_a_removed_entry_and_a_closed_gap(ledger, small):
    fill(ledger, small, 4)
    ledger.path(1).unlink()
    assert list(problems(ledger)) == ["00000001.json"]
    assert "missing, 1 in all: the ledger goes on with 00000002.json" in problems(ledger)["00000001.json"]
    ledger.path(2).replace(ledger.path(1))
    ledger.path(3).replace(ledger.path(2))
    assert {"00000001.json", "00000002.json"} <= set(problems(ledger))


def test_a_gap_is_not_filled_by_appending(ledger, small):
    fill(ledger, small, 4)
    ledger.path(1).unlink()
    assert ledger.append(small(key=A)) == 4
    assert list(problems(ledger)) == ["00000001.json"]
    assert Ledger(ledger.folder.parent).by_key(f"{1:064x}") is None


def test_a_stray_file_is_named(ledger, small):
    fill(ledger, small, 1)
    (ledger.folder / "00000001.json.bak").write_bytes(b"")
    (ledger.folder / "00000000.txt").write_bytes(b"")
    assert set(problems(ledger)) == {"00000001.json.bak", "00000000.txt"}


def append_many(home, statement, start):
    start.wait()
    ledger = Ledger(home)
    for _ in range(15):
        ledger.append(statement)


def test_appends_from_several_processes_give_one_dense_chain(ledger, small):
    context = multiprocessing.get_context("fork")
    start = context.Event()
    home = ledger.folder.parent
    processes = [context.Process(target=append_many, args=(home, small(key=f"{n:064x}"), start)) for n in range(4)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert ledger.sequences() == list(range(60))
    assert problems(ledger) == {}
    assert [len([r for r in ledger.entries() if r.key == f"{n:064x}"]) for n in range(4)] == [15] * 4


def test_what_is_no_receipt_cannot_be_appended(ledger, small):
    good = small(key=A)
    for bad in ({}, {"predicate": {}}, good | {"_type": "other"}, good | {"subject": [{"name": "x"}]}):
        with pytest.raises(ValueError):
            ledger.append(bad)
    assert ledger.sequences() == []


def test_reading_an_absent_ledger_creates_nothing(tmp_path):
    ledger = Ledger(tmp_path / "home")
    assert ledger.by_key(A) is None
    assert list(ledger.entries()) == []
    with pytest.raises(UsageError):
        ledger.find("abcdef")
    assert not (tmp_path / "home").exists()


def test_a_damaged_entry_alone_is_named_not_the_intact_one_after_it(ledger, small):
    fill(ledger, small, 3)
    overwrite(ledger.path(1), ledger.path(1).read_bytes().replace(b"ada", b"eve"))
    assert list(problems(ledger)) == ["00000001.json"]


def test_of_two_racing_runs_one_writes_the_receipt(ledger, small):
    """The other's append comes between this one's look and its own, which then finds the number taken."""
    ledger.append(small(key=B))
    begun, rivals = ledger.end(), [Ledger(ledger.folder.parent)]

    def rival_writes():
        while rivals:
            assert rivals.pop().append(small(key=A), since=begun) == 1

    assert ledger.append(small(key=A), since=begun, check=rival_writes) == 1
    assert [receipt.key for receipt in ledger.entries()] == [B, A]


def test_of_two_racing_measurements_the_first_receipt_decides(ledger, small):
    """Of exact stages both would stand: that they differ is evidence."""
    ledger.append(small(key=A, digest="1" * 64))
    assert ledger.append(small(key=A, digest="2" * 64), since=0, first_decides=True) == 0
    assert ledger.append(small(key=A, digest="2" * 64), since=1, first_decides=True) == 1
    assert ledger.append(small(key=A, digest="3" * 64), since=0) == 2


def test_what_was_on_record_before_the_work_began_is_recorded_again(ledger, small):
    """A lost artifact that is made anew has a receipt of its own."""
    ledger.append(small(key=A))
    assert ledger.append(small(key=A), since=ledger.end()) == 1


def test_who_may_not_write_any_more_writes_nothing(ledger, small):
    def refuse():
        raise Interrupted("another run has taken over")

    with pytest.raises(Interrupted):
        ledger.append(small(key=A), since=0, check=refuse)
    assert ledger.sequences() == []
