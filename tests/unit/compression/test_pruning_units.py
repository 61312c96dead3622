"""The table of structures, saliency, and shrinking."""

import pytest
import torch
import torch.nn.functional as F
from masking import mask_model

from vitops.compression.pruning.cost import macs, savings
from vitops.compression.pruning.dense import as_pruned_vit
from vitops.compression.pruning.groups import keep_all, kept_dims, layout, tensor_masks, widths
from vitops.compression.pruning.saliency import RunningSaliency, gate_gradients, saliency, summed, unit_sums
from vitops.compression.pruning.shrink import shrink
from vitops.config.compression import Dropout
from vitops.config.models import TimmModel
from vitops.errors import UsageError, VitopsError
from vitops.models import ModelSpec, load, save
from vitops.models import build as build_architecture
from vitops.models.counting import macs as counted_macs
from vitops.models.counting import parameters
from vitops.models.heads import heads
from vitops.models.pruned_vit import build

DIVISORS = {"emb": 12.0, "h": 12.0, "qk": 2.0, "v": 2.0, "mlp": 1.0}


def tiny_dims(**changes):
    dims = {
        "img_size": 16,
        "patch_size": 8,
        "classes": 5,
        "distilled": True,
        "emb": 32,
        "h": [4, 4],
        "qk": [8, 8],
        "v": [8, 8],
        "mlp": [48, 48],
        "scale": 8**-0.5,
        "ln": {"mode": "plain", "dense_emb": 32},
    }
    return dims | changes


def tiny_model(seed=0, **changes):
    """Random weights large enough that every block matters, biases and norms included."""
    torch.manual_seed(seed)
    model = build(tiny_dims(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def images(count=4, seed=1):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def logits(model, x):
    with torch.no_grad():
        return torch.stack(list(heads(model, x).values()))


def random_keep(dims, *, emb, seed=2):
    generator = torch.Generator().manual_seed(seed)
    keep = keep_all(dims)
    for name, mask in keep.items():
        if emb or name != "emb":
            gone = torch.randperm(len(mask), generator=generator)[: len(mask) // 3]
            mask[gone] = False
    return keep


def backward(model, x):
    loss = F.cross_entropy(heads(model, x)["mean"], torch.arange(len(x)) % 5)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_every_weight_that_pruning_must_cut_is_in_the_table():
    model = tiny_model()
    untouched = set(model.state_dict()) - set(layout(tiny_dims()))
    assert untouched == {"head.bias", "head_dist.bias"}


def test_register_tokens_are_in_the_table():
    model = tiny_model(distilled=False, reg_tokens=2)
    assert set(model.state_dict()) - set(layout(model.dims.model_dump())) == {"head.bias"}


def test_query_and_key_give_the_same_gate_gradient():
    model, table = tiny_model(), layout(tiny_dims())
    grads = backward(model, images())
    weights = dict(model.named_parameters())

    def gate(block, part, structure):
        names = [f"blocks.{block}.attn.{part}.{kind}" for kind in ("weight", "bias")]
        return sum(unit_sums(weights[n].detach() * grads[n], axes=table[n], structure=structure) for n in names)

    for block in range(2):
        for structure in (f"b{block}.h", f"b{block}.qk"):
            torch.testing.assert_close(gate(block, "q", structure), gate(block, "k", structure), rtol=1e-4, atol=1e-6)


def test_values_and_columns_of_the_projection_give_the_same_gate_gradient():
    model, table = tiny_model(), layout(tiny_dims())
    grads, weights = backward(model, images()), dict(model.named_parameters())
    found = gate_gradients(weights, grads, dims=tiny_dims())
    for block in range(2):
        name = f"blocks.{block}.attn.proj.weight"
        product = weights[name].detach() * grads[name]
        columns = unit_sums(product, axes=table[name], structure=f"b{block}.v")
        torch.testing.assert_close(found[f"b{block}.v"], columns, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("structure", ["emb", "b0.h", "b1.qk", "b1.v", "b0.mlp"])
def test_sums_are_the_gradient_of_a_multiplied_gate(structure):
    model, dims = tiny_model(), tiny_dims()
    table, x = layout(dims), images()
    expected = gate_gradients(dict(model.named_parameters()), backward(model, x), dims=dims)[structure]
    gate = torch.ones(widths(dims)[structure], requires_grad=True)
    gated = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if name in summed(dims)[structure]:
            axes = table[name]
            shape = [1] * len(axes.structures)
            shape[axes.axis(structure)] = -1
            value = (axes.view(value) * gate.view(shape)).reshape(value.shape)
        gated[name] = value
    mean = torch.func.functional_call(model, gated, (x,))
    F.cross_entropy(mean, torch.arange(len(x)) % 5).backward()
    torch.testing.assert_close(gate.grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_saliency_squares_after_the_division():
    model, dims = tiny_model(), tiny_dims()
    grads, weights = backward(model, images()), dict(model.named_parameters())
    gates = gate_gradients(weights, grads, dims=dims)
    found = saliency(weights, grads, dims=dims, divisors=DIVISORS)
    torch.testing.assert_close(found["b0.h"], (gates["b0.h"] / 12) ** 2)
    torch.testing.assert_close(found["b1.qk"], (gates["b1.qk"] / 2) ** 2)


def test_a_gradient_that_is_not_finite_stops_pruning():
    model = tiny_model()
    grads = backward(model, images())
    grads["blocks.1.mlp.fc1.bias"][3] = float("nan")
    with pytest.raises(VitopsError, match=r"saliency of .* not finite.*prune\.lr"):
        saliency(dict(model.named_parameters()), grads, dims=tiny_dims(), divisors=DIVISORS)


def test_average_starts_with_the_first_mean_and_then_moves():
    running = RunningSaliency(momentum=0.9)
    for value in (1.0, 3.0):
        running.add({"emb": torch.tensor([value])})
    assert running.close_interval()["emb"].item() == 2.0
    running.add({"emb": torch.tensor([12.0])})
    assert running.close_interval()["emb"].item() == pytest.approx(0.9 * 2 + 0.1 * 12)


def test_cost_from_widths_is_what_the_model_counts():
    for changes in ({}, {"h": [3, 1], "qk": [5, 8], "v": [8, 3], "mlp": [7, 48]}, {"distilled": False}):
        model = tiny_model(**changes)
        assert macs(model.dims.model_dump()) == counted_macs(model, 16)


def test_deit_base_costs_what_the_paper_counts():
    base = {"h": [12] * 12, "qk": [64] * 12, "v": [64] * 12, "mlp": [3072] * 12}
    dims = tiny_dims(img_size=224, patch_size=16, classes=1000, emb=768, **base)
    assert macs(dims) == pytest.approx(17.65681e9, rel=1e-6)


def test_one_unit_less_of_the_residual_width_saves_in_every_block():
    dims = tiny_dims()
    saved = savings(macs, dims)
    assert saved["emb"] > saved["b0.mlp"] > 0
    assert savings(macs, dims | {"mlp": [1, 48]})["b0.mlp"] == 0


def test_shrunk_equals_masked_while_the_residual_width_is_whole():
    model, x = tiny_model(), images()
    keep = random_keep(tiny_dims(), emb=False)
    small = shrink(model, keep, ln="gain")
    mask_model(model, keep)
    torch.testing.assert_close(logits(small, x), logits(model, x), rtol=0, atol=1e-5)
    assert small.dims.model_dump(mode="json")["scale"] == tiny_dims()["scale"]


def test_exact_norm_keeps_the_masked_outputs_and_plain_does_not():
    model, x = tiny_model(), images()
    keep = random_keep(tiny_dims(), emb=True)
    shrunk = {ln: logits(shrink(model, keep, ln=ln), x) for ln in ("plain", "gain", "exact")}
    mask_model(model, keep)
    masked = logits(model, x)
    torch.testing.assert_close(shrunk["exact"], masked, rtol=0, atol=1e-5)
    far = {ln: (values - masked).abs().max().item() for ln, values in shrunk.items()}
    assert far["plain"] > 1e-2
    assert far["gain"] < far["plain"]


def test_shrinking_twice_is_shrinking_once():
    model, x = tiny_model(), images()
    first = random_keep(tiny_dims(), emb=True)
    once = shrink(model, first, ln="exact")
    second = random_keep(kept_dims(tiny_dims(), first), emb=True, seed=5)
    together = {name: mask.clone() for name, mask in first.items()}
    for name, mask in together.items():
        mask[mask.nonzero().flatten()] = second[name]
    torch.testing.assert_close(
        logits(shrink(once, second, ln="gain"), x), logits(shrink(model, together, ln="exact"), x), rtol=0, atol=1e-5
    )


def test_counted_parameters_are_those_of_the_shrunk_file(tmp_path):
    model = tiny_model()
    keep = random_keep(tiny_dims(), emb=True)
    small = shrink(model, keep, ln="gain")
    dims = small.dims.model_dump(mode="json")
    spec = ModelSpec(builder={}, preprocessing={}, classes=list("abcde"), train_counts=[1] * 5, dims=dims)
    save(tmp_path, small, spec)
    again, _ = load(tmp_path)
    assert torch.equal(logits(again, images()), logits(small, images()))
    kept = sum(int(mask.expand(_viewed(model, name)).sum()) for name, mask in tensor_masks(tiny_dims(), keep).items())
    assert parameters(again) == kept + 10


def _viewed(model, name):
    return layout(tiny_dims())[name].view(model.state_dict()[name]).shape


def test_a_distilled_timm_model_converts_without_changing_its_logits():
    torch.manual_seed(0)
    args = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "drop_path_rate": 0.1}
    section = TimmModel(name="deit_tiny_distilled_patch16_224", args=args)
    model = build_architecture(section, classes=5).train()
    dense = as_pruned_vit(model)
    assert model.training
    torch.testing.assert_close(logits(dense, images()), logits(model.eval(), images()), rtol=0, atol=1e-5)
    assert dense.dims.h == (4, 4)
    assert dense.dims.scale == 8**-0.5
    assert dense.dims.drop_path == 0, "it drops what the section says, not what the student dropped"


def test_what_the_section_drops_outlives_the_shrinking():
    torch.manual_seed(0)
    dropout = Dropout(drop_path=0.1, attn_drop=0.2, proj_drop=0.3, pos_drop=0.4, head_drop=0.5)
    dense = as_pruned_vit(build(tiny_dims()), dropout)
    small = shrink(dense, keep_all(tiny_dims()), ln="gain")
    for model in (dense, small):
        assert model.dims.model_dump(include=set(dropout.parameters())) == dropout.parameters()


@pytest.mark.parametrize(
    ("name", "args", "path"),
    [
        ("vit_tiny_patch16_224", {"init_values": 0.1}, r"blocks\.0\.ls1"),
        ("vit_tiny_patch16_224", {"qk_norm": True}, r"blocks\.0\.attn\.(k|q)_norm"),
        ("vit_tiny_patch16_224", {"qkv_bias": False}, r"blocks\.0\.attn\.k"),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}, "global_pool"),
        ("vit_tiny_patch16_224", {"no_embed_class": True}, "pos_embed"),
        ("vit_tiny_patch16_224", {"act_layer": "relu"}, r"blocks\.0\.mlp"),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.5}, "patch_drop"),
        ("resnet18", None, "ResNet"),
    ],
)
def test_an_unsupported_model_is_refused_by_the_path_of_its_module(name, args, path):
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4} if args is not None else {}
    with pytest.raises(UsageError, match=f"does not support {path}"):
        as_pruned_vit(build_architecture(TimmModel(name=name, args=small | (args or {})), classes=5))
