"""Whatever the store, the ledger and the checkpoints do to the disk is a primitive of ``durable``."""

import ast
import re
from pathlib import Path

import pytest
from disk_operations import PRIMITIVES

import vitops
from vitops.store import durable

PACKAGE = Path(vitops.__file__).parent
ROOMS = ("store", "lineage", "training", "plan", "data", "cli")
"""Rooms that keep something between runs. Stage functions elsewhere fill ``job.out``, which is then published."""
CHANGING = {
    *("write_text", "write_bytes", "mkdir", "rmdir", "unlink", "touch", "rename", "symlink_to", "hardlink_to", "chmod"),
    *("fchmod", "lchmod", "chown", "fchown", "lchown", "utime", "setxattr", "removexattr", "mknod", "mkfifo"),
    *("fsync", "fdatasync", "remove", "removedirs", "renames", "makedirs", "link", "symlink", "truncate", "ftruncate"),
    *("flock", "lockf", "rmtree", "copyfile", "copyfileobj", "copy2", "copytree", "move", "mkstemp", "mkdtemp"),
    *("TemporaryDirectory", "TemporaryFile", "NamedTemporaryFile", "posix_fallocate", "copy_file_range", "pwrite"),
    *("write_json", "save_file", "write_table", "to_parquet", "tofile", "savez", "save_npz"),
}
OWNED = {("os", "write"), ("os", "replace"), ("np", "save"), ("torch", "save")}
"""Names that mean a change of the disk only with this owner."""
NO_FILES = {"durable", "manifest", "shared", "_shared", "objects", "_objects", "_bucket", "_missing", "handle"}
"""What calls the primitives itself, holds objects on a server, or is no file."""
READS = {"shutil.disk_usage", "shutil.which", "shutil.get_terminal_size"}
ALLOWED = {
    # A stage's working folder, of which nothing is kept before ``publish`` has copied it.
    ("store/canonical.py", "write_json"),
    ("training/convert.py", "convert"),
    ("training/stage.py", "_write"),
    # A cache that may be lost at any time, whose entries are hashed when they are read.
    ("training/teacher_cache.py", "_others"),
    # Signals between the driver and the workers of one run, in its folder: no evidence, and no other run reads them.
    ("training/ray_group.py", "__init__"),
    ("training/ray_group.py", "close"),
    ("training/ray_group.py", "_stop"),
    ("training/ray_group.py", "_keep"),
    ("training/ray_group.py", "_look_for_room"),
    ("training/ray_worker.py", "_work"),
    # What the processes of one run tell each other, and its log; the run's record itself is written by ``durable``.
    ("cli/data.py", "_tell"),
    ("cli/family.py", "end"),
    ("cli/family.py", "end_family"),
    ("cli/run.py", "_execute"),
    ("cli/supervise.py", "_ask"),
    ("cli/supervise.py", "supervise"),
    ("cli/reproduce.py", "_aside"),
    # A file that was asked for, and a closed stdout.
    ("cli/app.py", "run"),
    ("cli/schema.py", "schema"),
    # A scratch project, removed after the command.
    ("plan/reproduce.py", "_lay_out"),
    ("plan/reproduce.py", "_link_files"),
    # Of the project, made anew from the code wherever it is missing or damaged.
    ("plan/data_code.py", "write"),
    # A folder that ``outputs.replaced`` syncs and puts into place at once.
    ("data/gates/suite.py", "validate"),
    ("data/ingest.py", "ingest"),
    ("data/shards.py", "write"),
    ("data/splits/stage.py", "_write"),
    ("data/table.py", "write"),
    # DVC's own state, and what it says to us.
    ("data/dvc_process.py", "_environment"),
    ("data/dvc_process.py", "_run"),
}


def changes(source):
    """(function, call) of everything in the source that changes the disk, but through ``NO_FILES``."""
    return {
        (name, ast.unparse(node.func))
        for name, node in _calls(ast.parse(source), "")
        if _owner(node) not in NO_FILES and _changes(node)
    }


def _calls(node, function):
    """Every call below the node with the name of the innermost function it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield function, child
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _calls(child, child.name if inside else function)


def _changes(call):
    owner, name = _owner(call), _name(call)
    if owner == "shutil":
        return f"shutil.{name}" not in READS
    if name == "open":
        return _opens_to_write(owner, call)
    if name == "replace":  # of a string it takes two arguments, of a dataclass keywords
        return owner == "os" or (len(call.args) == 1 and not call.keywords)
    return name in CHANGING or (owner, name) in OWNED


def _opens_to_write(owner, call):
    if owner == "os":
        return bool(re.search("O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", ast.unparse(call)))
    said = [*call.args[:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [one.value for one in said if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(re.fullmatch("[rwaxbt+:|]*[wax+][rwaxbt+:|]*", mode) for mode in modes)


def _name(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _owner(call):
    """The last name before the called one: of ``self._objects.remove`` it is ``_objects``."""
    value = getattr(call.func, "value", None)
    return getattr(value, "attr", None) or getattr(value, "id", None)


def found():
    """(module, function, call) in all rooms but ``durable``, and in ``durable`` alone."""
    durables, others = set(), set()
    for path in (path for room in ROOMS for path in PACKAGE.joinpath(room).rglob("*.py")):
        name = str(path.relative_to(PACKAGE))
        into = durables if name == "store/durable.py" else others
        into |= {(name, *one) for one in changes(path.read_text())}
    return durables, others


def test_the_disk_is_changed_by_the_primitives_alone():
    durables, others = found()
    assert {function for _, function, _ in durables} == set(PRIMITIVES)
    assert {(name, function) for name, function, _ in others} == ALLOWED, sorted(others)


@pytest.mark.parametrize(
    "call",
    [
        *("path.chmod(0o444)", "os.fchmod(fd, 0o444)", "os.utime(path)", "os.truncate(path, 0)", "stream.truncate()"),
        *("path.symlink_to(other)", "os.symlink(a, b)", "shutil.rmtree(path)", "shutil.copy(a, b)", "path.touch()"),
        *("path.write_text(text)", "path.write_bytes(data)", "open(path, 'w')", "path.open('ab')", "path.replace(a)"),
        *("path.open(mode='r+')", "open(path, mode='x')", "os.open(path, os.O_CREAT | os.O_RDWR)", "os.write(fd, b)"),
        *("os.replace(a, b)", "rmtree(path)", "mkdtemp()", "tarfile.open(fileobj=stream, mode='w')", "os.fsync(fd)"),
    ],
)
def test_a_call_that_goes_round_the_primitives_is_seen(call):
    assert len(changes(f"def function():\n    {call}\n")) == 1
    assert len(changes(f"value = {call}\n")) == 1


@pytest.mark.parametrize(
    "call",
    [
        *("path.open('rb')", "open(path)", "text.replace('a', 'b')", "dataclasses.replace(one, field=1)"),
        *(
            "durable.remove(path)",
            "self._objects.remove(name)",
            "os.open(path, os.O_RDONLY)",
            "shutil.disk_usage(path)",
        ),
    ],
)
def test_a_call_that_reads_is_not(call):
    assert changes(f"def function():\n    {call}\n") == set()


def test_every_primitive_that_a_fault_test_counts_exists_and_none_is_left_out():
    text = Path(durable.__file__).read_text()
    _, _, end = text.partition("# The primitives:")
    assert {node.name for node in ast.parse(end.partition("\n")[2]).body} == set(PRIMITIVES)
