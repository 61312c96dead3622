"""Whatever the store, the ledger and the checkpoints do to the disk is a primitive of ``durable``."""

import ast
from pathlib import Path

import pytest
from disk_operations import PRIMITIVES

import vitops
from vitops.store import durable

PACKAGE = Path(vitops.__file__).parent
MODULES = [
    "store/*.py",
    "lineage/*.py",
    "training/checkpoint.py",
    "training/keeper.py",
    "training/shared_checkpoints.py",
    "plan/record.py",
    "plan/execute.py",
]
CHANGING = {
    *("write_text", "write_bytes", "mkdir", "rmdir", "unlink", "touch", "rename", "symlink_to", "hardlink_to", "chmod"),
    *("fsync", "fdatasync", "remove", "removedirs", "makedirs", "link", "symlink", "truncate", "ftruncate", "flock"),
    *("rmtree", "copyfile", "copy2", "copytree", "move", "mkstemp", "mkdtemp", "TemporaryDirectory", "lockf"),
}
SERVERS = {"shared", "_shared", "_objects", "_bucket"}
"""Attributes that hold objects on a server, not files; so does whatever is called ``objects``."""
ALLOWED = {("canonical.py", "write_json", "write_bytes")}
"""It fills a stage's working folder, of which nothing is kept before ``publish`` has copied it."""


def calls(path):
    """(function, name) of every call of an attribute in the module, but those through ``durable`` and to a server."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = node.func.value
                    local = isinstance(owner, ast.Name) and owner.id in ("durable", "manifest", "objects")
                    if not local and not (isinstance(owner, ast.Attribute) and owner.attr in SERVERS):
                        yield function.name, node.func.attr


def changes(path):
    return {(path.name, *call) for call in calls(path) if call[1] in CHANGING}


@pytest.mark.parametrize("path", sorted(path for pattern in MODULES for path in PACKAGE.glob(pattern)), ids=str)
def test_the_disk_is_changed_by_the_primitives_alone(path):
    found = changes(path) - ALLOWED
    if path.name == "durable.py":
        assert {function for _, function, _ in found} <= set(PRIMITIVES)
        assert len(found) >= 6
    else:
        assert found == set()


def test_every_primitive_that_a_fault_test_counts_exists_and_none_is_left_out():
    text = Path(durable.__file__).read_text()
    _, _, end = text.partition("# The primitives:")
    assert {node.name for node in ast.parse(end.partition("\n")[2]).body} == set(PRIMITIVES)
