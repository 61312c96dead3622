import pytest
import timm
import torch
from small_models import FAMILIES, VIT, cifar_resnet, deit, made, pruned, vit
from torch import nn

from vitops.errors import UsageError
from vitops.models.heads import predict
from vitops.models.tap import Feature, Tap

MODELS = {**FAMILIES, "cifar_resnet": cifar_resnet, "pruned": pruned}
STEMS = {
    "swin": "patch_embed",
    "vit": "patch_embed",
    "deit": "patch_embed",
    "pruned": "patch_embed",
    "cnn": "conv1",
    "cifar_resnet": "conv1",
}


def images(size=4, side=16):
    return torch.randn(size, 3, side, side, generator=torch.Generator().manual_seed(0))


def run(model, forward, *, training):
    """Logits and gradients under one seed, with fresh buffers."""
    model.train(training)
    model.zero_grad()
    torch.manual_seed(7)
    logits = forward(images())
    logits.square().sum().backward()
    return logits.detach(), [None if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_keep_their_bits_under_a_tap(name, training):
    plain, tapped = (made(MODELS[name]) for _ in range(2))
    tap = Tap(tapped, (0, -1, None), key="tap")
    logits, gradients = run(plain, lambda x: predict(plain, x), training=training)
    found, theirs = run(tapped, lambda x: tap(x).logits, training=training)
    assert torch.equal(found, logits)
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(gradients, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), tapped.buffers(), strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_a_tap_reads_its_stage_in_one_pass_and_leaves_no_trace(name):
    model = made(MODELS[name]).eval()
    tap, passes, seen = Tap(model, (0, None), key="tap"), [], []
    stages = [model.get_submodule(tap._stages.names[place]) for place in tap.places]
    handles = [getattr(model, STEMS[name]).register_forward_hook(lambda *_: passes.append(1))]
    handles += [stage.register_forward_hook(lambda _, __, output: seen.append(output)) for stage in stages[:1]]
    found = tap(images())
    for handle in handles:
        handle.remove()
    assert passes == [1]
    first, expected = found.features[0], seen[0]
    if first.output.ndim == 3:  # patches, behind the prefix tokens
        assert torch.equal(first.output, expected[:, model.num_prefix_tokens :])
        assert torch.equal(first.pooled, expected[:, 0])
    elif name == "swin":
        assert torch.equal(first.map, expected.permute(0, 3, 1, 2))
    else:
        assert torch.equal(first.map, expected)
        torch.testing.assert_close(first.pooled, expected.mean((2, 3)))
    assert tuple(feature.pooled.shape[1] for feature in found.features) == tap.widths
    assert not any(module._forward_hooks for module in model.modules())


def test_the_middle_is_the_stage_of_the_method_and_its_width_that_of_the_model():
    names = {
        "resnet18": ("layer3", 256),
        "resnet50": ("layer3", 1024),
        "mobilenetv1_100": (None, 512),
        "regnetx_016": (None, 408),
        "swin_tiny_patch4_window7_224": (None, 384),
        "deit_tiny_patch16_224": ("blocks.5", 192),
    }
    for name, (stage, width) in names.items():
        with torch.device("meta"):
            tap = Tap(timm.create_model(name), key="tap")
        assert tap.widths == (width,), name
        assert stage is None or tap._stages.names[tap.places[0]] == stage


@pytest.mark.parametrize("name", ["cait_xxs24_224", "convnext_atto", "test_efficientnet", "test_maxvit", "test_vit3"])
def test_other_architectures_of_timm_keep_their_bits(name):
    model = made(lambda: timm.create_model(name, num_classes=3)).eval()
    x, tap = images(1, model.default_cfg["input_size"][-1]), Tap(model, (0, None), key="tap")
    with torch.no_grad():
        found, logits = tap(x), model(x)
    assert torch.equal(found.logits, logits)
    assert tuple(feature.pooled.shape[1] for feature in found.features) == tap.widths


def test_a_vit_of_one_block_is_tapped_after_it():
    assert Tap(made(lambda: vit(depth=1)), key="tap").places == (0,)


def test_patches_become_the_map_they_were_cut_from():
    model = made(deit).eval()
    [feature] = Tap(model, (1,), key="tap")(images()).features
    side = VIT["img_size"] // VIT["patch_size"]
    assert feature.map.shape == (4, VIT["embed_dim"], side, side)
    assert torch.equal(feature.map[:, :, 1, 2], feature.output[:, side + 2])
    with pytest.raises(UsageError, match="3 patches are no square"):
        _ = Feature(torch.zeros(1, 3, 2)).map


@pytest.mark.parametrize(("name", "stages"), [("vit", "blocks.0, blocks.1"), ("cifar_resnet", "stages.0, stages.1")])
def test_a_place_that_is_not_there_is_refused_with_those_that_are(name, stages):
    with pytest.raises(UsageError, match=f"objective.mid_tap: got 9, but .* has the taps 0 to .: {stages}"):
        Tap(made(MODELS[name]), (9,), key="mid_tap")
    with pytest.raises(UsageError, match="nothing says which stages Linear has"):
        Tap(nn.Linear(2, 2), key="mid_tap")
