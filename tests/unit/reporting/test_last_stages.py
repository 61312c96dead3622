"""evaluate, package and report over real (untrained) models, real exports and a real int8 file."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import torch
from finished_models import FinishedModels, digest_of

from vitops.config.pipelines import Evaluate, Report
from vitops.data.loader import eval_batches, open_split
from vitops.errors import VitopsError
from vitops.evaluation.predictors import onnx_predictor, predictions, torch_predictor
from vitops.evaluation.stage import evaluate
from vitops.models import load
from vitops.models.counting import macs, parameters
from vitops.packaging.package import package
from vitops.packaging.predict import PackagePredictor
from vitops.packaging.rebuild import rebuild
from vitops.reporting.stage import report

ROLES = {name: name for name in ("teacher", "student", "prune", "export", "quantize")}
PACKAGED = {name: name for name in ("prune", "export", "quantize", "evaluate")}
EVALUATE = Evaluate(many=9, few=5, boundaries=(1, 2))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    torch.manual_seed(0)
    models = FinishedModels(tmp_path_factory.mktemp("finished"))
    models.run("evaluate", evaluate, ROLES, EVALUATE)
    models.run("package", package, PACKAGED, pipeline="quickstart")
    return models


@pytest.fixture(scope="module")
def metrics(finished):
    return json.loads((finished.folders["evaluate"] / "metrics.json").read_bytes())


@pytest.fixture(scope="module")
def reported(finished):
    stages = [
        {"name": name, "kind": name, "exactness": "exact", "status": "hit", "seconds": None, "digest": digest_of(name)}
        | {"resumed_from": None, "inputs": {} if name == "split" else {"split": "split"}}
        for name in ("split", "package", "report")
    ]
    record = finished.root / "record"
    record.mkdir()
    (record / "run.json").write_text(json.dumps({"pipeline": "quickstart", "stages": stages}))
    roles = ROLES | {"evaluate": "evaluate", "package": "package"}
    folder, outcome = finished.run("report", report, roles, Report(latency_runs=10), extra={"run": record})
    return folder, outcome


def test_metrics_name_the_split_and_every_model_with_its_artifact(metrics):
    assert (metrics["dataset"], metrics["split"], metrics["test_samples"]) == ("toy", "all", 6)
    sources = {"teacher": "teacher", "student": "student", "pruned": "prune", "onnx": "export", "int8": "quantize"}
    assert {name: entry["artifact"] for name, entry in metrics["models"].items()} == {
        name: digest_of(stage) for name, stage in sources.items()
    }
    assert metrics["groups"] == {"many": [], "medium": [0, 1, 2], "few": [], "head": [0], "mid": [1], "tail": [2]}


def test_distilled_models_are_scored_per_head_and_the_teacher_once(metrics):
    heads = {name: set(entry["heads"]) for name, entry in metrics["models"].items()}
    assert heads.pop("teacher") == {"mean"}
    assert all(found == {"cls", "dist", "mean"} for found in heads.values())


def test_the_exported_forms_have_the_size_of_the_pruned_network_and_bytes_of_their_own(finished, metrics):
    module, _ = load(finished.folders["prune"])
    for name in ("pruned", "onnx", "int8"):
        entry = metrics["models"][name]
        assert (entry["parameters"], entry["macs"]) == (parameters(module), macs(module, 16))
    assert metrics["models"]["int8"]["bytes"] == (finished.folders["quantize"] / "model.int8.onnx").stat().st_size


def test_every_head_is_counted_and_calibrated_and_held_against_the_teacher(finished, metrics):
    reader = open_split(finished.folders["split"])
    answers = {}
    for name in ("teacher", "student"):
        module, spec = load(finished.folders[name])
        found = predictions(torch_predictor(module), list(_batches(reader, spec.preprocessing)))
        answers |= {(name, head): logits.argmax(1) for head, logits in found.logits.items()}
    for (name, head), answered in answers.items():
        entry = metrics["models"][name]["heads"][head]
        pairs = zip(found.targets.tolist(), answered.tolist(), strict=True)
        assert sorted(pairs) == [(true, label) for true, label, n in entry["confusion"] for _ in range(n)]
        assert sum(row["images"] for row in entry["calibration"]) == 6
        assert 0 <= entry["ece"] <= 100
    same = (answers["student", "dist"] == answers["teacher", "mean"]).float().mean()
    assert metrics["models"]["student"]["heads"]["dist"]["agreement"]["overall"] == pytest.approx(
        100 * float(same), abs=1e-4
    )
    assert "agreement" not in metrics["models"]["teacher"]["heads"]["mean"]


def test_torch_models_are_looked_into_and_the_others_are_not(metrics):
    inside = {name: entry.get("analysis") for name, entry in metrics["models"].items()}
    assert inside["onnx"] is inside["int8"] is None
    assert inside["teacher"] == {
        "skipped": "CifarResNet is no plain vision transformer: it has no blocks and no patch_embed and no cls_token"
    }
    assert [len(block) for block in inside["student"]["attention_distance"]["blocks"]] == [2, 2]
    assert [len(block) for block in inside["pruned"]["attention_distance"]["blocks"]] == [2, 1]
    assert inside["student"]["expert_diversity_by_epoch"] == [0.25] * 4
    assert "expert_diversity_by_epoch" not in inside["pruned"]  # its objective noted no cosine
    assert inside["student"]["expert_diversity"] > 0


def test_evaluating_again_gives_the_same_bytes(finished, tmp_path):
    folder, _ = finished.run("evaluate", evaluate, ROLES, EVALUATE, out="evaluate-again")
    assert (folder / "metrics.json").read_bytes() == (finished.folders["evaluate"] / "metrics.json").read_bytes()


def test_torch_and_onnx_agree_on_every_head(finished):
    module, spec = load(finished.folders["prune"])
    reader = open_split(finished.folders["split"])
    section = {"preprocessing": spec.preprocessing}
    batches = list(_batches(reader, section["preprocessing"]))
    ours = predictions(torch_predictor(module), batches)
    theirs = predictions(onnx_predictor(finished.folders["export"] / "model.onnx"), batches)
    assert set(ours.logits) == set(theirs.logits) == {"cls", "dist", "mean"}
    for head, logits in ours.logits.items():
        torch.testing.assert_close(theirs.logits[head], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.logits["mean"], (ours.logits["cls"] + ours.logits["dist"]) / 2)


def _batches(reader, preprocessing):
    from vitops.config.training import Preprocessing

    return eval_batches(reader, "test", Preprocessing.model_validate(preprocessing), batch_size=4)


def test_a_model_of_other_classes_is_refused(finished):
    stranger = finished.root / "stranger"
    shutil.copytree(finished.folders["teacher"], stranger)
    spec = json.loads((stranger / "model.json").read_bytes())
    (stranger / "model.json").write_text(json.dumps(spec | {"classes": ["x", "y", "z"]}))
    finished.folders["stranger"] = stranger
    with pytest.raises(VitopsError, match="dataset it was trained on"):
        finished.run("evaluate", evaluate, ROLES | {"teacher": "stranger"}, EVALUATE, out="evaluate-stranger")


def test_the_package_predicts_what_its_rebuilt_torch_model_says(finished, tmp_path):
    folder = finished.folders["package"]
    module, spec = rebuild(folder)
    reader = open_split(finished.folders["split"])
    image = tmp_path / "x.png"
    image.write_bytes(reader.read("test", 0))
    found = PackagePredictor(folder, model="fp32").predict(image)
    with torch.inference_mode():
        expected = module(next(iter(_batches(reader, spec.preprocessing)))["input"][:1]).softmax(1)[0]
    assert [guess.probability for guess in found.guesses] == pytest.approx(
        expected.sort(descending=True).values.tolist(), abs=1e-5
    )


def test_latency_json_has_all_four_models_and_their_artifacts(reported):
    folder, outcome = reported
    latency = json.loads((folder / "latency.json").read_bytes())
    assert list(latency["models"]) == ["int8", "pruned", "student", "teacher"]
    assert latency["models"]["pruned"]["artifact"] == digest_of("export")
    assert (latency["runs"], latency["batch"], latency["threads"]) == (10, 1, 1)
    for entry in latency["models"].values():
        assert 0 < entry["min_ms"] <= entry["median_ms"] <= entry["p90_ms"]
    ratio = latency["models"]["student"]["median_ms"] / latency["models"]["int8"]["median_ms"]
    assert outcome.facts["times_faster_than_student"]["int8"] == pytest.approx(ratio, abs=1e-3)


class Page(HTMLParser):
    """What a browser would load or run, and whether every tag is closed."""

    void = {"meta", "br", "link", "img"}

    def __init__(self, text):
        super().__init__()
        self.loads, self.open, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_well_formed_file_that_loads_and_runs_nothing(reported):
    text = (reported[0] / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "url(" not in text and "@import" not in text


def test_every_chart_has_a_title_and_a_description(reported):
    text = (reported[0] / "report.html").read_text()
    pictures = re.findall(r"<svg .*?</svg>", text, re.S)
    charts = {
        "scatter, classes, stages": 3,
        "curves: loss and lr of each training, cosine of the student": 3 * 2 + 1,
        "widths": 4,
        "diversity, agreement, attention distance": 3,
        "confusion and reliability of teacher, CLS, DIST and int8": 2 * 4,
    }
    assert len(pictures) == sum(charts.values())
    for picture in pictures:
        assert re.match(r"<svg [^>]*role=\"img\"[^>]*><title>[^<]+</title><desc>[^<]+</desc>", picture)


def test_the_report_shows_every_accuracy_and_every_input_digest(reported, metrics):
    text = (reported[0] / "report.html").read_text()
    for entry in metrics["models"].values():
        for score in entry["heads"].values():
            assert f"<td>{score['overall']:.2f}</td>" in text
    for stage in (*ROLES, "evaluate", "package", "split"):
        assert digest_of(stage)[:12] in text
    assert "pipeline <b>quickstart</b>" in text
