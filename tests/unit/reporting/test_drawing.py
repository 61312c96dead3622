import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from vitops.reporting.charts import ClassRow, Point, accuracy_latency, block_widths, class_bars
from vitops.reporting.dag import dag
from vitops.reporting.latency import WARM_UP, interleaved, summary
from vitops.reporting.lineage_tree import lineage_tree
from vitops.reporting.svg import Axis, element, number, spanning, text


def test_text_and_attributes_are_escaped_and_markup_is_kept():
    drawn = element("g", text(0, 0, "<script>&"), "a<b", title_='"x"')
    assert "<script>" not in drawn and "&lt;script&gt;&amp;" in drawn and "a&lt;b" in drawn
    assert 'title="&#34;x&#34;"' in drawn
    assert isinstance(drawn, Markup)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_inside_the_axis_and_not_too_many(low, width):
    axis = Axis(low, low + width, 0, 100)
    ticks = axis.ticks()
    assert len(ticks) <= 7
    slack = width * 1e-6 + abs(low) * 1e-9
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)


def test_a_log_axis_has_powers_of_ten_evenly_spaced():
    axis = Axis(1, 1000, 0, 300, log=True)
    assert axis.ticks() == [1, 10, 100, 1000]
    assert [axis(value) for value in axis.ticks()] == pytest.approx([0, 100, 200, 300])


def test_an_axis_that_counts_has_no_tick_between_two_numbers():
    assert Axis(-0.5, 1.5, 0, 100, whole=True).ticks(6) == [0, 1]
    assert Axis(0, 60, 0, 100, whole=True).ticks(6) == Axis(0, 60, 0, 100).ticks(6)


def test_equal_values_still_span_a_range():
    low, high = spanning([5.0, 5.0])
    assert low < 5 < high
    assert spanning([0.0, 0.0])[1] > 0


def test_tick_labels_are_short():
    assert [number(v) for v in (0.5, 10.0, 1500.0, 2e6)] == ["0.5", "10", "1.5k", "2M"]


def test_a_class_name_from_data_cannot_inject_markup():
    rows = [ClassRow("m", "red", [50.0, None])]
    drawn = class_bars(rows, classes=["<img src=x>", "b"], train_counts=[3, 0])
    assert "<img" not in drawn and "&lt;img" in drawn


def test_a_class_without_test_images_has_no_bar_and_is_spoken_as_a_dash():
    drawn = class_bars([ClassRow("m", "red", [50.0, None])], classes=["a", "b"], train_counts=[3, 2])
    assert drawn.count('fill="red"') == 1
    assert "m: 50.00 %, –" in drawn


def test_a_thousand_classes_still_fit():
    drawn = class_bars([ClassRow("m", "red", [50.0] * 1000)], classes=["c"] * 1000, train_counts=[9] * 1000)
    assert drawn.count("rotate(") <= 50


def test_disc_areas_are_proportional_to_file_sizes():
    drawn = accuracy_latency([Point("a", 1.0, 90.0, 400), Point("b", 2.0, 91.0, 100)])
    radii = sorted(float(part.split('"')[1]) for part in drawn.split(" r=")[1:])
    assert radii == [3, 3, 11, 22]


def test_models_with_the_same_numbers_are_all_named():
    drawn = accuracy_latency([Point(name, 1.0, 90.0, 100) for name in ("teacher", "student", "pruned", "int8")])
    tops = [part.split('"')[1] for part in drawn.split(" y=") if 'class="name"' in part.split(">")[0]]
    assert len(tops) == len(set(tops)) == 4


def test_widths_show_both_numbers_of_every_block():
    drawn = block_widths([8, 8], [8, 3], title="heads")
    assert "block 1: 8 before, 3 after" in drawn


STAGES = [
    {"name": name, "kind": name, "exactness": "exact", "status": status, "seconds": 1.5, "digest": name[0] * 64}
    | {"resumed_from": None, "inputs": {role: role for role in inputs}}
    for name, status, inputs in [
        ("split", "hit", []),
        ("train", "executed", ["split"]),
        ("prune", "executed", ["split", "train"]),
        ("package", "executed", ["split", "prune"]),
        ("report", "running", ["prune", "package"]),
    ]
]


def test_the_dag_draws_each_edge_once_and_no_seconds_for_a_hit():
    drawn = dag(STAGES)
    assert drawn.count('class="edge') == 7
    assert "split → prune" in drawn
    assert drawn.count("1.5 s") == 4


def test_an_input_that_is_no_stage_of_the_run_has_no_edge():
    pinned = [STAGES[0], STAGES[2] | {"inputs": {"split": "split", "model": "student"}}]
    assert dag(pinned).count('class="edge') == 1


def test_the_lineage_tree_expands_each_artifact_once_and_hangs_pinned_ones_at_the_root():
    tree = lineage_tree({"package": "p" * 64, "prune": "q" * 64, "teacher": "t" * 64}, {"stages": STAGES})
    package, teacher = tree["inputs"]
    assert [node["name"] for node in package["inputs"]] == ["split", "prune"]
    prune = package["inputs"][1]
    assert prune["digest"] == "q" * 64
    assert [(node["name"], node["seen"]) for node in prune["inputs"]] == [("split", True), ("train", False)]
    assert teacher == {"name": "teacher", "digest": "t" * 64, "inputs": [], "seen": False}


def test_without_a_run_the_tree_lists_the_inputs():
    tree = lineage_tree({"split": "s" * 64, "package": "p" * 64}, None)
    assert [node["name"] for node in tree["inputs"]] == ["package", "split"]


def test_runs_are_interleaved_in_a_rotating_order():
    order = []
    found = interleaved({name: (lambda name=name: order.append(name)) for name in "abc"}, runs=3)
    assert order[3 * WARM_UP :] == list("abcbcacab")
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_slower_call_has_the_larger_median():
    found = interleaved({"slow": lambda: time.sleep(0.004), "fast": lambda: None}, runs=5)
    assert summary(found["slow"])["median_ms"] >= 4 > summary(found["fast"])["median_ms"]


def test_summary_takes_the_nearest_rank():
    assert summary([float(n) for n in range(1, 11)]) == {"median_ms": 5.5, "p90_ms": 9.0, "min_ms": 1.0}
    assert math.isclose(summary([3.0])["p90_ms"], 3.0)
