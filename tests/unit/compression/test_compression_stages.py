"""prune, export and quantize from folders to folders, in one process."""

import hashlib
import json

import numpy as np
import onnx
import pytest
import torch
from onnxruntime.quantization.calibrate import create_calibrator
from safetensors.torch import load_file
from synthetic_split import write_split

from vitops.compression import export as export_module
from vitops.compression.export import MODEL, export, gate, parity, to_onnx, write
from vitops.compression.fused_attention import fused
from vitops.compression.pruning.cost import macs
from vitops.compression.pruning.stage import prune
from vitops.compression.quantization import kernels, static
from vitops.compression.quantization.static import INT8_MODEL, quantize, quantized
from vitops.config.models import TimmModel
from vitops.errors import Interrupted, UsageError, VitopsError
from vitops.evaluation.onnx_session import session
from vitops.models import ModelSpec, build, heads, load, save
from vitops.store.job import Job, Position
from vitops.training import keeper
from vitops.training.stage import train

INPUT_SIDE = 16
PREPROCESSING = {"size": INPUT_SIDE}
IMAGE = {"image": (3, INPUT_SIDE, INPUT_SIDE)}
TEACHER = {
    "model": {"kind": "cifar_resnet", "depth": 8},
    "objective": {"kind": "cross_entropy"},
    "epochs": 5,
    "micro_batches": 2,
    "micro_batch_size": 6,
    "preprocessing": PREPROCESSING,
    "optimizer": {"name": "sgd", "lr": 0.05},
}
ARGS = {"img_size": INPUT_SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
PRUNE = {
    "target": 0.6,
    "min_dims": {"emb": 8, "h": 1, "qk": 2, "v": 2, "mlp": 8},
    "group_sizes": {"emb": 4, "h": 1, "qk": 2, "v": 2, "mlp": 8},
    "groups_per_round": 4,
    "interval": 2,
    "finetune": {
        "objective": {"kind": "nvit", "distill": {"kind": "deit_lt"}},
        "epochs": 2,
        "micro_batches": 2,
        "micro_batch_size": 6,
        "preprocessing": PREPROCESSING,
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "ema": 0.9,
    },
}
QUANTIZE = {"images": 8, "max_drop": 100.0}


def job_in(root, config, *, stop=None, steps=None, **inputs):
    (root / "out").mkdir(parents=True, exist_ok=True)
    return Job(
        stage="stage",
        key="0" * 64,
        parameters={"config": config, "seed": 3},
        inputs=inputs,
        out=root / "out",
        checkpoints=root / "checkpoints",
        progress=root / "progress.json",
        stop=stop,
        resources={"launcher": "local", "checkpoint_steps": steps},
    )


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def json_of(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("stages"), train=36, val=12)


@pytest.fixture(scope="module")
def teacher(split, tmp_path_factory):
    job = job_in(tmp_path_factory.mktemp("teacher"), TEACHER, split=split)
    train(job)
    return job.out


def save_student(folder, *, name="deit_tiny_distilled_patch16_224", **args):
    torch.manual_seed(0)
    section = TimmModel(name=name, args=ARGS | args)
    model = build(section, classes=3).eval()
    spec = ModelSpec(
        builder=section.parameters(), preprocessing=PREPROCESSING, classes=["c0", "c1", "c2"], train_counts=[12] * 3
    )
    folder.mkdir(exist_ok=True)
    save(folder, model, spec)
    return folder


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    return save_student(tmp_path_factory.mktemp("student") / "model")


@pytest.fixture(scope="module")
def pruned(split, teacher, student, tmp_path_factory):
    job = job_in(tmp_path_factory.mktemp("pruned"), PRUNE, split=split, teacher=teacher, model=student)
    prune(job)
    return job.out


@pytest.fixture(scope="module")
def exported(split, pruned, tmp_path_factory):
    job = job_in(tmp_path_factory.mktemp("exported"), {}, split=split, model=pruned)
    export(job)
    return job.out


def test_pruned_artifact_loads_and_is_as_small_as_it_says(pruned, student):
    assert sorted(path.name for path in pruned.iterdir()) == [
        "dims.json",
        "ema.safetensors",
        "history.json",
        "masks.safetensors",
        "model.json",
        "prune_log.json",
        "weights.safetensors",
    ]
    model, spec = load(pruned)
    dims = json_of(pruned / "dims.json")
    assert spec.dims == dims["after"] == model.dims.model_dump(mode="json")
    assert dims["macs"] == {"before": macs(dims["before"]), "after": macs(dims["after"])}
    assert dims["macs_share"] == dims["macs"]["after"] / dims["macs"]["before"] <= 0.6
    assert (pruned / "weights.safetensors").stat().st_size < (student / "weights.safetensors").stat().st_size
    masks = load_file(pruned / "masks.safetensors")
    assert [int(masks[f"b{block}.mlp"].sum()) for block in range(2)] == dims["after"]["mlp"]
    assert masks["emb"].all()


def test_prune_log_tells_every_step_and_the_equivalence(pruned):
    log = json_of(pruned / "prune_log.json")
    assert log["equivalence"]["expected"]
    assert log["equivalence"]["relative"] < 1e-5
    costs = [row["cost"] for row in log["rounds"]]
    assert costs == sorted(costs, reverse=True)
    assert all({"structure", "units", "saliency", "latency"} == group.keys() for group in log["rounds"][0]["removed"])
    assert log["validation_accuracy"].keys() == {"dense", "masked", "shrunk", "finetuned"}
    assert log["validation_accuracy"]["masked"] == log["validation_accuracy"]["shrunk"]
    history = json_of(pruned / "history.json")
    assert [row["epoch"] for row in history] == list(range(len(history)))
    assert [row["phase"] for row in history][-3:] == ["pruning", "finetune", "finetune"]


@pytest.mark.parametrize("phase", ["pruning", "finetune"])
def test_stopped_in_either_phase_it_goes_on_to_the_same_bytes(
    phase, split, teacher, student, pruned, tmp_path, monkeypatch
):
    inputs = {"split": split, "teacher": teacher, "model": student}
    pruning_steps = PRUNE["interval"] * len(json_of(pruned / "prune_log.json")["rounds"])
    calls = iter(range(1000))
    # Counted from 0: the third step of pruning, or the second of fine-tuning; the last step of pruning does not ask.
    last = 2 if phase == "pruning" else pruning_steps
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Job, "stopping", lambda job: next(calls) == last)
        prune(job_in(tmp_path, PRUNE, **inputs))
    assert (tmp_path / "checkpoints" / "finetune").exists() == (phase == "finetune")
    outcome = prune(job_in(tmp_path, PRUNE, **inputs))
    assert outcome.resumed_from == (Position(epoch=0, step=3 if phase == "pruning" else 2))
    assert outcome.work_lost.steps == 0, "all was saved"
    assert digests(tmp_path / "out") == digests(pruned)


def test_a_kill_before_the_first_checkpoint_of_finetuning_tells_what_finetuning_lost(
    split, teacher, student, pruned, tmp_path, monkeypatch
):
    monkeypatch.setattr(keeper, "_REPORT_SECONDS", 0.0)
    inputs = {"split": split, "teacher": teacher, "model": student}
    pruning_steps = PRUNE["interval"] * len(json_of(pruned / "prune_log.json")["rounds"])
    calls = iter(range(1000))

    def dies(job):
        if next(calls) == pruning_steps:  # in the second step of fine-tuning
            raise KeyboardInterrupt
        return False

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Job, "stopping", dies)
        prune(job_in(tmp_path, PRUNE, steps=10, **inputs))
    outcome = prune(job_in(tmp_path, PRUNE, **inputs))
    assert outcome.work_lost.steps == 1, "the second step had not ended"
    assert digests(tmp_path / "out") == digests(pruned)


def test_a_student_built_for_another_size_is_refused(split, teacher, tmp_path):
    student = save_student(tmp_path / "student", img_size=32)
    with pytest.raises(UsageError, match=r"size is 16, but the student was built for 32"):
        prune(job_in(tmp_path, PRUNE, split=split, teacher=teacher, model=student))


def test_an_unsupported_student_is_refused_before_training(split, teacher, tmp_path):
    student = save_student(tmp_path / "student", name="vit_tiny_patch16_224", init_values=0.1)
    with pytest.raises(UsageError, match=r"does not support blocks\.0\.ls1"):
        prune(job_in(tmp_path, PRUNE, split=split, teacher=teacher, model=student))
    assert not (tmp_path / "checkpoints").exists()


def test_onnx_has_one_image_input_and_the_heads_as_outputs(exported, pruned):
    run = session(exported / MODEL)
    assert [(node.name, node.shape[1:]) for node in run.get_inputs()] == [("image", [3, 16, 16])]
    assert [node.name for node in run.get_outputs()] == ["logits", "cls", "dist"]
    model, _ = load(pruned)
    for count in (1, 5):
        images = torch.randn(count, 3, 16, 16)
        with torch.no_grad():
            expected = heads(model, images)
        logits, cls, dist = run.run(None, {"image": images.numpy()})
        for found, name in ((logits, "mean"), (cls, "cls"), (dist, "dist")):
            np.testing.assert_allclose(found, expected[name].numpy(), atol=1e-5)


def test_export_is_deterministic_and_carries_no_trace_of_its_making(exported, pruned, split, tmp_path):
    export(job_in(tmp_path, {}, split=split, model=pruned))
    assert digests(tmp_path / "out") == digests(exported)
    data = (exported / MODEL).read_bytes()
    assert b".py" not in data
    assert b"File " not in data
    assert json_of(exported / "parity.json")["outputs"].keys() == {"logits", "cls", "dist"}


def test_parity_gate_stops_a_file_that_is_not_the_model(pruned, tmp_path):
    model, _ = load(pruned)
    write(to_onnx(model, inputs=IMAGE, opset=20), tmp_path / MODEL)
    with torch.no_grad():
        model.head.bias[1] += 1e-2
    found = parity(model, tmp_path / MODEL, images=torch.randn(3, 3, 16, 16))
    assert found["dist"]["relative"] < 1e-5
    with pytest.raises(VitopsError, match=r"output `logits` differs from torch by .* export\.tolerance"):
        gate(found, tolerance=1e-4)


def test_export_stage_fails_when_parity_fails(pruned, split, tmp_path, monkeypatch):
    def broken(model):
        copy = fused(model)
        copy.blocks[0].attn.scale = 1.0
        return copy

    monkeypatch.setattr(export_module, "fused", broken)
    with pytest.raises(VitopsError, match=r"export\.tolerance"):
        export(job_in(tmp_path, {}, split=split, model=pruned))


def test_a_plain_vit_exports_one_output_and_the_input_it_is_told(tmp_path):
    section = TimmModel(name="vit_tiny_patch16_224", args=ARGS)
    write(to_onnx(build(section, classes=3).eval(), inputs={"picture": (3, 16, 16)}, opset=20), tmp_path / MODEL)
    run = session(tmp_path / MODEL)
    assert [node.name for node in run.get_inputs()] == ["picture"]
    assert [node.name for node in run.get_outputs()] == ["logits"]


def test_quantized_model_runs_every_weight_product_on_integers(exported, split, tmp_path):
    quantize(job_in(tmp_path, QUANTIZE, split=split, export=exported))
    record = json_of(tmp_path / "out" / "quantization.json")
    depth = 2
    assert record["products"]["weights"] == record["products"]["integer"] == 1 + 4 * depth + 2
    assert record["products"]["attention"] == record["products"]["float"] == 2 * depth
    assert record["accuracy"]["int8_cosine"] > 0.98
    assert record["accuracy"]["levels_cosine"] > 0.99
    assert all(
        record["accuracy"][name] == round(record["accuracy"][name], 6) for name in ("int8_cosine", "levels_cosine")
    )
    assert record["bytes"]["int8"] == (tmp_path / "out" / INT8_MODEL).stat().st_size
    run = session(tmp_path / "out" / INT8_MODEL)
    assert [node.name for node in run.get_outputs()] == ["logits", "cls", "dist"]
    assert run.run(None, {"image": np.zeros((7, 3, 16, 16), np.float32)})[0].shape == (7, 3)


def test_quantization_is_deterministic_and_depends_on_the_calibration_images(exported):
    model = onnx.load(exported / MODEL)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, again, other = (
        quantized(model, x).SerializeToString(deterministic=True) for x in (images, images, 2 * images)
    )
    assert first == again
    assert first != other


def test_calibration_runs_on_one_thread(exported, monkeypatch):
    made = []

    def create(*arguments, **options):
        made.append(create_calibrator(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(static, "create_calibrator", create)
    quantized(onnx.load(exported / MODEL), torch.randn(8, 3, 16, 16))
    (options,) = (calibrator.infer_session.get_session_options() for calibrator in made)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


@pytest.mark.parametrize("calibration", ["entropy", "percentile"])
def test_other_calibrations_give_close_logits(calibration, exported, tmp_path):
    images = torch.randn(72, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    write(quantized(onnx.load(exported / MODEL), images, calibration=calibration), tmp_path / INT8_MODEL)
    expected = session(exported / MODEL).run(["logits"], {"image": images.numpy()})[0]
    found = session(tmp_path / INT8_MODEL).run(["logits"], {"image": images.numpy()})[0]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.97


def test_a_weight_that_stays_float_is_named(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(static, "PRODUCTS", ("MatMul", "Conv"))
    floating = onnx.load(exported / MODEL)
    write(quantized(floating, torch.randn(8, 3, 16, 16)), tmp_path / INT8_MODEL)
    found = kernels.count(tmp_path / INT8_MODEL)
    assert len(found.float_weights) == 2
    with pytest.raises(VitopsError, match=found.float_weights[0]):
        kernels.check(found, weights=len(kernels.weight_products(floating.graph)))


def test_missing_integer_kernels_are_noticed():
    found = kernels.Kernels(integer={"QLinearMatMul": 7}, floating={}, float_weights=())
    with pytest.raises(VitopsError, match=r"8 products with weights.*only 7"):
        kernels.check(found, weights=8)


GOOD = {"fp32": 91.0, "int8": 90.5, "drop": 0.5, "levels_cosine": 0.999}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": 3.0, "int8": 88.0}, r"loses 3\.00 points.*max_drop \(1\)"),
        ({"levels_cosine": 0.93}, "attention_float"),
    ],
)
def test_quantization_gates(changes, message):
    found = kernels.Kernels(integer={"QLinearMatMul": 8}, floating={}, float_weights=())
    static.gate(found, GOOD, weights=8, max_drop=1.0)
    with pytest.raises(VitopsError, match=message):
        static.gate(found, GOOD | changes, weights=8, max_drop=1.0)
