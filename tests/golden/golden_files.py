"""Finding golden vectors, and making sure that none of them is passed over.

A file belongs to the longest known prefix of its name (``sam`` also owns ``sam_rho08.npz``). Arrays may be absent, but
each one that is there must be read: a key that no test asked for fails.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch


class Vectors:
    """The arrays of one file; remembers which were read."""

    def __init__(self, path: Path):
        self.path = path
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self._unread = set(self.arrays)

    def __contains__(self, name):
        return name in self.arrays

    def __getitem__(self, name):
        self._unread.discard(name)
        return self.arrays[name]

    def tensor(self, name):
        return torch.from_numpy(np.array(self[name]))

    def scalar(self, name):
        return self[name].item()

    def are_inputs(self, *names):
        """Count as read: inputs of cases that a file may lack."""
        self._unread -= set(names)

    def matching(self, pattern):
        """(key, match) of every key that ``pattern`` matches completely, in file order."""
        found = ((name, re.fullmatch(pattern, name)) for name in self.arrays)
        return [(name, match) for name, match in found if match]

    def assert_all_read(self):
        assert not self._unread, f"{self.path.name} holds arrays that no test knows: {sorted(self._unread)}"


def owner(stem, prefixes):
    """The longest prefix that owns a file name without ``.npz``, or None."""
    owners = [prefix for prefix in prefixes if stem == prefix or stem.startswith(prefix + "_")]
    return max(owners, key=len, default=None)


def files(folder, prefix, *, prefixes):
    """The files of ``folder`` that ``prefix`` owns, sorted."""
    return [path for path in sorted(Path(folder).glob("*.npz")) if owner(path.stem, prefixes) == prefix]


def require(folder, prefixes):
    """Fail, naming ``folder``, unless one of ``prefixes`` owns a file in it."""
    if not any(owner(path.stem, prefixes) for path in Path(folder).glob("*.npz")):
        pytest.fail(f"{folder} has no golden file: none is called {', '.join(prefixes)}", pytrace=False)


def unknown(folder, prefixes):
    """Names in ``folder`` that no prefix owns."""
    return [path.name for path in sorted(Path(folder).iterdir()) if owner(path.stem, prefixes) is None]
