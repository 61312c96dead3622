"""benchmarks/speed/resume.py: a comparison in which a peer is missing does not hold."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks/speed/resume.py"
MISSING = "not installed: `make .venv/bench` brings it"


@pytest.fixture(scope="module")
def benchmark():
    return runpy.run_path(str(SCRIPT))


def medians(benchmark, *, without=()):
    return {name: [10.0] * len(benchmark["POSITIONS"]) for name in benchmark["DISTRIBUTIONS"] if name not in without}


def test_it_holds_when_every_loader_was_measured(benchmark):
    assert benchmark["summary"](medians(benchmark), {})["holds"] is True


@pytest.mark.parametrize("without", [["litdata"], ["webdataset", "torchdata", "litdata", "mosaicml"]])
def test_it_does_not_when_a_peer_was_not(benchmark, without):
    found = benchmark["summary"](medians(benchmark, without=without), dict.fromkeys(without, MISSING))
    assert (found["holds"], found["not_measured"]) == (False, dict.fromkeys(without, MISSING))


def test_it_does_not_when_a_position_takes_too_long(benchmark):
    slow = medians(benchmark) | {"vitops": [51.0] * len(benchmark["POSITIONS"])}
    assert benchmark["summary"](slow, {})["holds"] is False
