import re

from vitops.reporting import inside
from vitops.reporting.answer_charts import MOST_CELLS, confusion, reliability
from vitops.reporting.block_charts import Blocks, over_blocks


def rects(drawn):
    return re.findall(r"<rect [^>]*fill-opacity=\"([\d.]+)\"[^>]*><title>([^<]+)</title>", drawn)


def test_a_cell_is_as_strong_as_its_share_of_its_row():
    drawn = confusion([[0, 0, 3], [0, 1, 1], [1, 1, 5]], classes=["a", "b"], title="m", colour="red")
    assert rects(drawn) == [
        ("0.64", "a taken for a: 3 of 4"),
        ("0.21", "a taken for b: 1 of 4"),
        ("0.85", "b taken for b: 5 of 5"),
    ]
    assert "8 of 9 images lie on the diagonal of 2 by 2 cells" in drawn


def test_cells_lie_at_true_row_and_answered_column():
    drawn = confusion([[1, 0, 2]], classes=["a", "b"], title="m", colour="red")
    x, y = re.search(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*fill="red"', drawn).groups()
    assert (float(x), float(y)) == (96, 12 + 150)


def test_many_classes_share_cells_and_lose_no_image():
    pairs = [[label, (7 * label) % 1000, 1] for label in range(1000)]
    drawn = confusion(pairs, classes=[f"c{label}" for label in range(1000)], title="m", colour="red")
    found = rects(drawn)
    assert len(found) <= MOST_CELLS**2
    assert sum(int(re.search(r": (\d+) of", hint)[1]) for _, hint in found) == 1000
    assert any(hint.startswith("c0 … c31 taken for") for _, hint in found)
    assert any(hint.startswith("c992 … c999 taken for") for _, hint in found)


def test_names_from_data_cannot_inject_markup_into_a_confusion():
    drawn = confusion([[0, 0, 1]], classes=["<img src=x>"], title="m", colour="red")
    assert "<img" not in drawn and "&lt;img" in drawn


def test_a_reliability_diagram_has_a_disc_per_filled_bin_with_its_share_as_area():
    bins = [
        {"images": 0, "confidence": None, "accuracy": None},
        {"images": 3, "confidence": 50.0, "accuracy": 100.0},
        {"images": 1, "confidence": 100.0, "accuracy": 0.0},
    ]
    drawn = reliability(bins, error=62.5, title="m", colour="red")
    discs = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="([\d.]+)"[^>]*class="disc"', drawn)
    assert discs == [("197", "14", "20.78"), ("336", "230", "12")]
    assert "expected calibration error 62.50 % over 4 images" in drawn


def test_every_head_has_a_dot_at_its_block_and_the_reference_is_named():
    models = [Blocks("student", "red", [[10.0, 30.0], [20.0, 40.0]]), Blocks("pruned", "blue", [[12.0], [14.0]])]
    drawn = over_blocks(models, title="t", y_title="px", reference=("uniform", 35.0))
    dots = re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="3.5" fill="(\w+)"[^>]*><title>([^<]+)</title>', drawn)
    assert [hint for _, colour, hint in dots if colour == "blue"] == ["pruned, block 0: 12", "pruned, block 1: 14"]
    assert [hint for _, colour, hint in dots if colour == "red"][:2] == [
        "student, block 0, head 0: 10",
        "student, block 0, head 1: 30",
    ]
    columns = {hint: float(x) for x, _, hint in dots}
    assert columns["student, block 0, head 0: 10"] < columns["pruned, block 0: 12"] < columns["pruned, block 1: 14"]
    assert ">uniform</text>" in drawn and "student: 10 to 30, 20 to 40; pruned: 12, 14" in drawn


def test_a_head_that_looks_nowhere_still_has_a_place():
    drawn = over_blocks([Blocks("student", "red", [[0.0]])], title="t", y_title="px")
    assert 'cy="250"' in drawn and "student, block 0: 0" in drawn


def test_what_a_model_has_not_is_said_instead_of_drawn():
    found = {
        "images": 4,
        "attention_distance": {"uniform": 8.0, "blocks": [[1.0]]},
        "feature_rank": {"token": "cls", "width": 9, "skipped": "4 images are too few"},
    }
    metrics = {"models": {"teacher": {"analysis": {"skipped": "a CNN"}}, "student": {"analysis": found}}}
    shown = inside.blocks(metrics)
    assert [chart["title"][:9] for chart in shown["charts"]] == ["Attention"]
    assert shown["missing"] == ["teacher: a CNN", "student: 4 images are too few"]
    ranked = found | {"feature_rank": {"token": "dist", "width": 3, "blocks": [2]}}
    shown = inside.blocks({"models": {"student": {"analysis": ranked}}})
    assert len(shown["charts"]) == 2 and "student: DIST, width 3, 4 images" in shown["charts"][1]["title"]
