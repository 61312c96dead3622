"""What timm refuses is named with its key before anything is trained."""

import pytest
import torch

from vitops.errors import UsageError
from vitops.plan.stages import Stage
from vitops.training.preflight import check_models

RECIPE = {
    "objective": {"kind": "cross_entropy"},
    "epochs": 1,
    "micro_batch_size": 8,
    "preprocessing": {"size": 32},
    "optimizer": {"name": "sgd", "lr": 0.1},
}


def stage(model, **recipe):
    return Stage(
        "student", "train", {"config": RECIPE | recipe | {"model": model}, "seed": 0}, ("vitops.errors",), (), {}
    )


def vit(name="deit_tiny_distilled_patch16_224", **args):
    return {"kind": "timm", "name": name, "args": args}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (vit("deit_tny_distilled_patch16_224"), ["model.name", "did you mean deit_tiny_distilled_patch16_224"]),
        (vit(dept=3), ["model.args", "dept"]),
        (vit(embed_dim=100, num_heads=3), ["model.args", "num_heads"]),
        (vit(embed_dim=-64, num_heads=1), ["negative"]),
        (vit(patch_size=0), ["zero"]),
        (vit(pretrained=True), ["model.args", "pretrained"]),
    ],
)
def test_what_cannot_be_built_is_a_usage_error_that_names_the_key(model, words):
    with pytest.raises(UsageError) as caught:
        check_models("quickstart", [stage({"kind": "cifar_resnet", "depth": 8}), stage(model)])
    said = str(caught.value)
    assert said.startswith("pipelines.quickstart.student") and all(word in said for word in words), said


def test_a_tap_that_the_model_does_not_have_is_named_before_anything_runs():
    check_models("quickstart", [stage(vit(), objective={"kind": "uskd", "mid_tap": 11})])
    with pytest.raises(UsageError, match=r"^pipelines\.quickstart\.student: objective\.mid_tap: got 12, but Vision"):
        check_models("quickstart", [stage(vit(), objective={"kind": "uskd", "mid_tap": 12})])


@pytest.mark.parametrize("drw", [None, {"epoch": 1}])
def test_objectives_are_tried_on_their_models(drw):
    check_models("quickstart", [stage(vit(), objective={"kind": "cross_entropy", "drw": drw}, epochs=2)])
    check_models("quickstart", [stage(vit(), objective={"kind": "logit_adjustment"})])
    check_models("quickstart", [stage({"kind": "cifar_resnet", "head": "linear"}, objective={"kind": "paco"})])


def test_good_models_pass_without_a_trace():
    before = torch.random.get_rng_state()
    check_models("quickstart", [stage(vit(img_size=32, patch_size=8)), stage({"kind": "cifar_resnet", "depth": 8})])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.zeros(1).device.type == "cpu"


def test_stages_without_an_architecture_are_not_asked():
    check_models("quickstart", [Stage("prune", "prune", {"config": {}}, ("vitops.errors",), (), {})])


@pytest.mark.parametrize(
    "name",
    [
        "beit_base_patch16_224",
        "cait_xxs24_224",
        "convnext_atto",
        "eva02_tiny_patch14_224",
        "swin_tiny_patch4_window7_224",
        "xcit_nano_12_p16_224",
    ],
)
def test_an_architecture_that_draws_its_weights_its_own_way_passes(name):
    check_models("quickstart", [stage(vit(name))])
