"""A slice of benchmarks/speed/plan_truth.py: whatever is edited, plan and reality agree and nothing is stale."""

import json
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks/speed/plan_truth.py"


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_plan_equals_reality_over_random_edits(seed):
    command = [sys.executable, str(SCRIPT), "--edits", "8", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["plan_equals_reality"], found["stale_hits"]) == (8, 0), done.stdout
    assert set(found["planned"]) == {"hit", "run", "waits"}
