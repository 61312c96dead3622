"""A slice of ``make faults``: some disk operations of the small road, and one whole road killed in each stage.

The children are forked from a process of its own, because the one that runs the tests has computed with torch before.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).with_name("campaign.py")


def test_a_kill_or_an_error_at_any_disk_operation_leaves_a_store_that_goes_on_to_the_same_bytes(tmp_path):
    table = tmp_path / "table.md"
    options = ["--every", "131", "--random", "4", "--real", "0", "--seed", "7", "--table", str(table)]
    paths = [str(CAMPAIGN.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CAMPAIGN), *options], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["holds"] is True
    assert summary["points"] >= 10
    assert summary["kills"] >= summary["points"] + 4
    assert summary["power_cuts"] >= 4
    assert len(summary["kills_per_stage"]) >= 5
    assert f"| {summary['kills']:,} |" in table.read_text()
