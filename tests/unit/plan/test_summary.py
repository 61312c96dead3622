import json

import pytest

from vitops.plan.summary import accuracy_table, with_latency


@pytest.fixture
def evaluate(tmp_path):
    heads = {"mean": {"overall": 90.0, "many": 95.0, "medium": 90.0, "few": None}}
    sizes = {"student": 400, "pruned": 220}
    models = {name: {"heads": heads, "macs": macs, "parameters": 7, "bytes": 28} for name, macs in sizes.items()}
    (tmp_path / "metrics.json").write_text(json.dumps({"models": models}))
    return tmp_path


def test_a_model_is_set_against_the_student_it_came_from(evaluate):
    (evaluate / "latency.json").write_text(
        json.dumps({"models": {"student": {"median_ms": 3.0}, "pruned": {"median_ms": 2.0}}})
    )
    student, pruned = with_latency(accuracy_table(evaluate), evaluate)
    assert (student["% student"], pruned["% student"]) == (100.0, pytest.approx(55.0))
    assert (student["x student"], pruned["x student"]) == (1.0, 1.5)
    assert pruned["few"] is None
