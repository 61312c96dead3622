"""DVC's remote in a bucket: stock push, and what vitops restores from it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from s3_faults import FAULTS

from vitops.data import dvc_process
from vitops.errors import VitopsError
from vitops.store import manifest

CONFIG = """\
[core]
    no_scm = true
    analytics = false
    remote = team
['remote "team"']
    url = {url}
    endpointurl = {endpoint}
    verify = true
"""


def dvc(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(root / ".dvc/tmp/state")}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def pushed(s3, tmp_path):
    """A project whose folder ``data`` was pushed; its manifest."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(CONFIG.format(url=f"{s3.url}/dvc", endpoint=s3.proxy.url))
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / f"data/{number}.tar").write_bytes(bytes([number]) * 20_000)
    dvc(tmp_path, "add", "data")
    dvc(tmp_path, "push")
    entries = manifest.scan(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    shutil.rmtree(tmp_path / ".dvc/cache")
    return tmp_path, entries


def test_what_was_pushed_comes_back_with_the_same_digest_whatever_happens_to_requests(s3, pushed):
    root, entries = pushed
    assert len(s3.names()) == 4
    for strike in FAULTS.values():
        s3.proxy.strike("GET", "/dvc/", strike, times=1)
    with pytest.raises(VitopsError, match=r"DVC cannot restore data.*ExpiredToken"):  # DVC does not read them again
        dvc_process.restore(root, ["data"], say=lambda line: None)
    dvc_process.restore(root, ["data"], say=lambda line: None)
    assert manifest.scan(root / "data") == entries
    assert [rule for rule in s3.proxy.rules if rule.times] == []


def test_a_byte_altered_in_the_remote_is_not_restored(s3, pushed):
    root, _ = pushed
    name = next(name for name in s3.names() if not name.endswith(".dir"))
    s3.put(name, s3.get(name)[:-1] + b"?")
    with pytest.raises(VitopsError, match="DVC cannot restore data"):
        dvc_process.restore(root, ["data"], say=lambda line: None)
