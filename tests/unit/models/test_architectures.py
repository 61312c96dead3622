import pytest
import timm
import torch
from torch import nn

from vitops.config.models import CifarResNet, TimmModel
from vitops.errors import UsageError, VerificationError
from vitops.models import build, heads, predict, pruned_vit
from vitops.models.counting import macs, parameters
from vitops.models.heads import CosineHead, classifier
from vitops.models.pruned_vit import ExactLayerNorm

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def small_vit(name="deit_tiny_distilled_patch16_224", **args):
    torch.manual_seed(0)
    return build(TimmModel(name=name, args=SMALL | args), classes=5)


def vit_dims(*, emb, heads, classes=1000, depth=12, width=64, side=224, patch=16):
    return {
        "img_size": side,
        "patch_size": patch,
        "classes": classes,
        "distilled": True,
        "emb": emb,
        "h": [heads] * depth,
        "qk": [width] * depth,
        "v": [width] * depth,
        "mlp": [4 * emb] * depth,
        "scale": width**-0.5,
        "ln": {"mode": "plain", "dense_emb": emb},
    }


# nvit.md 4: parameters and multiply-accumulates at 224 px, 1000 classes.
@pytest.mark.parametrize(
    ("name", "emb", "heads_", "count", "giga"),
    [
        ("deit_base_distilled_patch16_224", 768, 12, 87_338_192, 17.65681),
        ("deit_small_distilled_patch16_224", 384, 6, 22_436_432, 4.62414),
        ("deit_tiny_distilled_patch16_224", 192, 3, 5_910_800, 1.26100),
    ],
)
def test_counts_of_the_published_widths(name, emb, heads_, count, giga):
    with torch.device("meta"):
        dense = timm.create_model(name)
        pruned = pruned_vit.build(vit_dims(emb=emb, heads=heads_))
    for model in (dense, pruned):
        assert parameters(model) == count
        assert round(macs(model, 224) / 1e9, 5) == giga


def test_counting_with_unfused_attention_gives_the_same():
    fused, unfused = small_vit(), small_vit()
    for block in unfused.blocks:
        block.attn.fused_attn = False
    assert macs(fused, 16) == macs(unfused, 16)


def test_counting_leaves_the_model_as_it_was():
    model = small_vit().train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    macs(model, 16)
    assert model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("deit_base_distilled_patch16_224", 10, 85_815_572),
        ("deit_base_distilled_patch16_224", 100, 85_953_992),
        ("deit_base_distilled_patch16_224", 8142, 98_322_588),
        ("deit_small_distilled_patch16_224", 10, 21_674_132),
        ("deit_tiny_distilled_patch16_224", 10, 5_528_660),
    ],
)
def test_parameters_of_the_distilled_students(name, classes, count):
    with torch.device("meta"):
        assert parameters(build(TimmModel(name=name), classes=classes)) == count


@pytest.mark.parametrize(
    ("head", "classes", "count"),
    [("linear", 10, 464_154), ("cosine", 10, 464_144), ("linear", 100, 470_004), ("cosine", 100, 469_904)],
)
def test_parameters_of_the_teacher(head, classes, count):
    assert parameters(build(CifarResNet(depth=32, head=head), classes=classes)) == count


def test_cifar_resnets_are_in_timms_registry():
    model = timm.create_model("cifar_resnet32", num_classes=10, head="cosine")
    assert parameters(model) == 464_144
    with pytest.raises(UsageError, match="no published weights"):
        timm.create_model("cifar_resnet8", pretrained=True)


@pytest.mark.parametrize("depth", [9, 10, 33])
def test_a_depth_that_is_not_6n_plus_2_is_refused(depth):
    with pytest.raises(UsageError, match=rf"6n \+ 2.*got {depth}"):
        timm.create_model("cifar_resnet8").__class__(depth)


def test_the_shortcut_is_option_a():
    block = build(CifarResNet(depth=8), classes=2).stages[1][0].eval()
    nn.init.zeros_(block.bn2.weight)  # the residual branch gives 0: only the shortcut is left
    x = torch.rand(1, 16, 4, 4)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert out[:, :8].eq(0).all() and out[:, 24:].eq(0).all()


def test_the_cosine_head_gives_cosines():
    head = CosineHead(8, 3)
    x = torch.randn(10, 8) * 100
    expected = torch.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x), expected)
    with torch.no_grad():
        head.weight *= 7
    torch.testing.assert_close(head(x), expected)
    assert head.bias is None


def test_a_small_stem_keeps_the_size_of_small_images():
    model = build(TimmModel(name="resnet18", stem="small"), classes=100)
    assert parameters(model) == 11_689_512 - 900 * 513 - 64 * 3 * (7 * 7 - 3 * 3)
    features = model.maxpool(model.act1(model.bn1(model.conv1(torch.zeros(2, 3, 32, 32)))))
    assert features.shape == (2, 64, 32, 32)
    with pytest.raises(UsageError, match=r"model\.stem"):
        build(TimmModel(name="test_vit", stem="small"), classes=3)


def test_a_timm_cnn_takes_the_cosine_head():
    model = build(TimmModel(name="test_resnet", head="cosine"), classes=3).eval()
    assert heads(model, 9 * torch.randn(4, 3, 32, 32))["mean"].abs().max() <= 1 + 1e-6
    assert getattr(classifier(model), "cosine", False)
    with pytest.raises(UsageError, match=r"model\.head"):
        build(TimmModel(name="deit_tiny_distilled_patch16_224", head="cosine"), classes=3)


def test_a_misspelt_timm_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"did you mean .*deit_tiny_distilled_patch16_224"):
        build(TimmModel(name="deit_tiny_destilled_patch16_224"), classes=2)


@pytest.mark.parametrize("name", ["hf-hub:someone/model", "resnet18.a1_in1k"])
def test_names_that_would_download_are_refused(name):
    with pytest.raises(UsageError, match="no architecture"):
        build(TimmModel(name=name), classes=2)


@pytest.mark.parametrize("args", [{"pretrained": True}, {"num_classes": 3}])
def test_reserved_arguments_are_refused(args):
    with pytest.raises(UsageError, match=f"may not set {next(iter(args))}"):
        build(TimmModel(name="deit_tiny_patch16_224", args=args), classes=2)


@pytest.mark.parametrize("args", [{"embed_dimm": 16}, {"embed_dim": 10, "num_heads": 3}])
def test_arguments_that_timm_refuses_name_the_model(args):
    with pytest.raises(UsageError, match="cannot build deit_tiny_patch16_224"):
        build(TimmModel(name="deit_tiny_patch16_224", args=args), classes=2)


@pytest.mark.parametrize("make", [small_vit, lambda: pruned_vit.build(vit_dims(emb=8, heads=2, side=16, patch=8))])
def test_both_heads_are_the_same_in_training_and_evaluation(make):
    model, x = make(), torch.randn(3, 3, 16, 16)
    train, evaluation = heads(model.train(), x), heads(model.eval(), x)
    assert list(train) == ["cls", "dist", "mean"]
    assert all(torch.equal(train[head], evaluation[head]) for head in train)
    assert torch.equal(evaluation["mean"], (evaluation["cls"] + evaluation["dist"]) / 2)
    assert torch.equal(predict(model, x), model(x))


def test_a_plain_model_has_the_mean_head_alone():
    model, x = build(CifarResNet(depth=8), classes=4).eval(), torch.randn(2, 3, 8, 8)
    assert list(heads(model, x)) == ["mean"]
    assert torch.equal(heads(model, x)["mean"], model(x))


def copy_into_pruned(dense, dims):
    model = pruned_vit.build(dims)
    state = {}
    for name, tensor in dense.state_dict().items():
        if "attn.qkv" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("qkv", part)] = piece
        else:
            state[name] = tensor
    model.load_state_dict(state)
    return model.eval()


@pytest.mark.parametrize("distilled", [True, False])
def test_unpruned_widths_give_timms_outputs(distilled):
    dense = small_vit("deit_tiny_distilled_patch16_224" if distilled else "deit_tiny_patch16_224").eval()
    dims = vit_dims(emb=16, heads=2, classes=5, depth=2, width=8, side=16, patch=8) | {"distilled": distilled}
    pruned, x = copy_into_pruned(dense, dims), torch.randn(3, 3, 16, 16)
    for head, logits in heads(dense, x).items():
        torch.testing.assert_close(heads(pruned, x)[head], logits, atol=1e-5, rtol=1e-5)


def test_registers_stand_between_cls_and_patches_as_in_timm():
    dense = small_vit("deit_tiny_patch16_224", reg_tokens=3).eval()
    dims = vit_dims(emb=16, heads=2, classes=5, depth=2, width=8, side=16, patch=8)
    pruned = copy_into_pruned(dense, dims | {"distilled": False, "reg_tokens": 3})
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(pruned(x), dense(x), atol=1e-5, rtol=1e-5)


def test_the_attention_scale_is_the_stored_one():
    torch.manual_seed(1)
    dims = vit_dims(emb=8, heads=2, depth=1, width=4, side=16, patch=8, classes=3)
    base, other = pruned_vit.build(dims), pruned_vit.build(dims | {"scale": 2.0})
    for model in (base, other):
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    x = torch.randn(2, 3, 16, 16)
    assert not torch.allclose(base(x), other(x))


def test_query_and_value_widths_may_differ_from_block_to_block():
    dims = vit_dims(emb=12, heads=2, depth=2, side=16, patch=8, classes=3)
    model = pruned_vit.build(dims | {"h": [3, 1], "qk": [2, 7], "v": [5, 1], "mlp": [4, 9]})
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    assert model.blocks[0].attn.q.weight.shape == (6, 12)
    assert model.blocks[1].attn.proj.weight.shape == (12, 1)


def test_the_exact_norm_is_the_masked_dense_norm():
    dense, kept = nn.LayerNorm(10, eps=1e-6), torch.tensor([0, 2, 3, 7])
    nn.init.normal_(dense.weight)
    nn.init.normal_(dense.bias)
    small = ExactLayerNorm(4, dense=10)
    small.load_state_dict({name: tensor[kept] for name, tensor in dense.state_dict().items()})
    x = torch.zeros(6, 5, 10)
    x[..., kept] = torch.randn(6, 5, 4) + 1
    torch.testing.assert_close(small(x[..., kept]), dense(x)[..., kept], atol=1e-6, rtol=1e-5)


def test_drop_path_acts_in_training_only():
    model = pruned_vit.build(vit_dims(emb=8, heads=2, depth=3, side=16, patch=8, classes=3) | {"drop_path": 0.9})
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(4, 3, 16, 16)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


RATES = {
    "drop_path": "drop_path_rate",
    "attn_drop": "attn_drop_rate",
    "proj_drop": "proj_drop_rate",
    "pos_drop": "pos_drop_rate",
    "head_drop": "drop_rate",
}
"""Ours -> timm's."""


@pytest.mark.parametrize("rates", [{name: 0.4} for name in RATES] + [dict.fromkeys(RATES, 0.2)])
def test_in_training_a_pruned_vit_of_full_widths_drops_what_timm_drops(rates):
    """The same draws in the same places."""
    dense = small_vit(**{RATES[name]: rate for name, rate in rates.items()})
    dims = vit_dims(emb=16, heads=2, classes=5, depth=2, width=8, side=16, patch=8)
    pruned, x = copy_into_pruned(dense, dims | rates), torch.randn(3, 3, 16, 16)
    found = []
    for model, training in ((dense, True), (pruned, True), (pruned, False)):
        torch.manual_seed(3)
        found.append(heads(model.train(training), x)["mean"])
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[1], found[2])
    torch.manual_seed(3)
    assert torch.equal(pruned.train()(x), found[1]), "with both heads at once as one by one"


@pytest.mark.parametrize(
    "change",
    [
        {"h": [1]},
        {"qk": [0, 4]},
        {"patch_size": 5},
        {"unknown": 1},
        {"emb": 99},
        {"proj_drop": 1.0},
        {"h": [], "qk": [], "v": [], "mlp": []},
    ],
)
def test_widths_that_make_no_model_are_refused(change):
    dims = vit_dims(emb=8, heads=2, depth=2, side=16, patch=8)
    with pytest.raises(VerificationError, match="make no model"):
        pruned_vit.build(dims | change)


def test_a_seed_fixes_the_initial_weights():
    for section in (CifarResNet(depth=8), TimmModel(name="deit_tiny_distilled_patch16_224", args=SMALL)):
        states = []
        for _ in range(2):
            torch.manual_seed(11)
            states.append(build(section, classes=3).state_dict())
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
