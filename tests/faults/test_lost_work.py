"""A recovery that begins a training again though a checkpoint was there diverges; the bytes alone would be the same."""

import subprocess
import sys

import pytest

JUDGED = f"""
import signal, sys, tempfile
from pathlib import Path
sys.path[:0] = {sys.path!r}
import forked
from disk_operations import Fault
from undisturbed import Undisturbed
from vitops.training.checkpoint import Checkpoints

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = Undisturbed(Path(folder), until="teacher")
        home = Path(folder, "home")
        undisturbed.copy_before("teacher", home)
        number = [thread for thread, _ in undisturbed.operations("teacher")].count("checkpoint") - 1
        late = Fault("checkpoint", number, "before")
        ended = forked.end(forked.start(lambda: undisturbed.numbered(home, "teacher", late)))
        assert ended == -signal.SIGKILL, ended
        if sys.argv[1] == "forgetful":
            Checkpoints.newest = lambda self: (None, [])
        print(forked.answer(lambda: undisturbed.judge(home, "teacher")))
"""


@pytest.mark.parametrize(("kind", "verdict"), [("real", "'same'"), ("forgetful", "'divergent'")])
def test_steps_that_a_checkpoint_had_saved_are_not_done_again(kind, verdict):
    done = subprocess.run([sys.executable, "-c", JUDGED, kind], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"[{verdict}"), done.stdout
    assert ("steps done anew" in done.stdout) == (kind == "forgetful")
