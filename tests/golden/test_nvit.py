"""NViT against vectors recorded from the official code (NVlabs/NViT), in the layout of its weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import require, unknown
from masking import mask_model

from vitops.compression.pruning.groups import keep_all, kind, widths
from vitops.compression.pruning.saliency import RunningSaliency, saliency
from vitops.compression.pruning.selection import chunks
from vitops.compression.pruning.shrink import shrink
from vitops.models.heads import heads
from vitops.models.pruned_vit import PrunedViT, build

METHOD = "nvit"
ASSERTED = ("saliency", "mask_equivalence")
# prune_steps: the official loop step by step, with its lagging latency table and its averages that are zeroed once.
WAITING = ("prune_steps",)
PREFIXES = ASSERTED + WAITING

META = "meta/emb_h_hd_mlp_depth_img_patch_classes"
DIVISORS = {"emb": 12.0, "h": 12.0, "qk": 2.0, "v": 2.0, "mlp": 1.0}
GROUP_SIZES = {"emb": 16, "h": 2, "qk": 8, "v": 8, "mlp": 16}


def close(actual, expected, *, rtol=0.0, atol=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=rtol, atol=atol)


def dims_of(vectors):
    emb, h, width, mlp, depth, side, patch, classes = (int(value) for value in vectors[META])
    scale = vectors.scalar("scale") if "scale" in vectors else width**-0.5
    per_block = {"h": h, "qk": width, "v": width, "mlp": mlp}
    return {
        "img_size": side,
        "patch_size": patch,
        "classes": classes,
        "distilled": True,
        "emb": emb,
        **{name: [value] * depth for name, value in per_block.items()},
        "scale": scale,
        "ln": {"mode": "plain", "dense_emb": emb},
    }


def converted(vectors, prefix, dims, *, gradients=False):
    """Tensors in the official layout under ``prefix`` by our names. Head masks are folded into q, k and v.

    With gradients the fold divides: d loss / d (mask * w) = (d loss / d w) / mask, so that w * gradient stays.
    """
    state = {}
    for key, match in vectors.matching(f"{prefix}/(.+)"):
        name, tensor = match[1], vectors.tensor(key)
        if ".head_mask." in name:
            continue
        if ".attn.qkv." in name:
            mask_key = f"w/{name.partition('.attn.qkv.')[0]}.attn.qkv.head_mask.weight"
            mask = vectors.tensor(mask_key).flatten() if mask_key in vectors else torch.ones(tensor.shape[-1])
            tensor = tensor / mask if gradients else tensor * mask  # (width, [E,] H)
            name = name.replace(".qkv.Q", ".q").replace(".qkv.K", ".k").replace(".qkv.V", ".v")
            tensor = tensor.movedim(-1, 0).flatten(0, 1)  # (width, [E,] H) -> (H * width, [E])
        elif name.endswith("attn.proj.weight"):
            tensor = tensor.transpose(1, 2).flatten(1)  # (E, V, H) -> (E, H * V)
        elif name == "patch_embed.proj.weight":
            patch = dims["patch_size"]
            tensor = tensor.view(-1, patch, patch, 3).permute(0, 3, 1, 2)  # (E, p1 p2 c) -> (E, c, p1, p2)
        state[name] = tensor.contiguous()
    return state


def model_of(vectors, dims):
    model = build(dims).eval()
    model.load_state_dict(converted(vectors, "w", dims))
    return model


def test_every_file_is_asserted_or_waits(golden_dir):
    require(golden_dir / METHOD, ASSERTED)
    assert unknown(golden_dir / METHOD, PREFIXES) == []


@pytest.mark.golden("saliency")
def test_saliency_of_batches_and_their_mean(vectors):
    dims = dims_of(vectors)
    running = RunningSaliency(momentum=0.9)
    for key, match in vectors.matching(r"x(\d+)"):
        model, number = model_of(vectors, dims), match[1]
        loss = F.cross_entropy(heads(model, vectors.tensor(key))["mean"], vectors.tensor(f"y{number}"))
        close(loss, vectors.tensor(f"loss{number}"))
        loss.backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert_gradients(vectors, dims, grads, number=number)
        values = saliency(dict(model.named_parameters()), grads, dims=dims, divisors=DIVISORS)
        assert_by_structure(vectors, values, prefix=f"sal_batch{number}")
        running.add(values)
    assert_by_structure(vectors, running.close_interval(), prefix="sal_mean")
    assert_groups(vectors, dims)
    for key, _ in vectors.matching(r"g\d+/.+\.head_mask\.weight"):
        assert np.isfinite(vectors[key]).all()  # ours has no such parameter: the mask is part of the weights
    vectors.assert_all_read()


def assert_gradients(vectors, dims, grads, *, number):
    expected = converted(vectors, f"g{number}", dims, gradients=True)
    assert not expected or expected.keys() == grads.keys()
    for name, gradient in expected.items():
        close(grads[name], gradient, rtol=1e-3)


def assert_by_structure(vectors, values, *, prefix):
    found = vectors.matching(f"{prefix}/(.+)")
    assert not found or {match[1] for _, match in found} == values.keys()
    for key, match in found:
        close(values[match[1]], vectors.tensor(key), rtol=2e-3, atol=1e-9)


def assert_groups(vectors, dims):
    """Chunks of the recorded means: the same units, and the sums of their saliency."""
    for key, match in vectors.matching(r"group_ids/(.+)"):
        structure = match[1]
        mean = vectors.tensor(f"sal_mean/{structure}")
        size = min(GROUP_SIZES[kind(structure)], len(mean))
        groups = chunks(mean, keep_all(dims)[structure], size=size)
        expected = [tuple(int(unit) for unit in row if unit >= 0) for row in vectors[key]]
        assert [set(units) for units in groups] == [set(units) for units in expected]
        sums = torch.stack([mean[list(units)].double().sum() for units in groups])
        close(sums, vectors.tensor(f"group_sum/{structure}"), rtol=2e-3, atol=1e-9)


@pytest.mark.golden("mask_equivalence")
def test_masked_equals_shrunk(vectors):
    dims = dims_of(vectors)
    model, images = model_of(vectors, dims), vectors.tensor("x")
    keep = {match[1]: vectors.tensor(key).bool() for key, match in vectors.matching(r"keep/(.+)")}
    assert keep.keys() == widths(dims).keys()
    without_emb = keep | {"emb": torch.ones_like(keep["emb"])}
    assert_outputs(vectors, model, images, name="y_full")
    assert_outputs(vectors, masked(model, without_emb), images, name="y_masked_noemb")
    assert_outputs(vectors, shrink(model, without_emb, ln="plain"), images, name="y_masked_noemb")
    assert_outputs(vectors, masked(model, keep), images, name="y_masked_emb")
    for ln in ("plain", "gain", "exact"):
        assert_outputs(vectors, shrink(model, keep, ln=ln), images, name=f"y_dense_emb_ln_{ln}")
    assert_outputs(vectors, shrink(model, keep, ln="exact"), images, name="y_masked_emb")
    assert_wrong_scale(vectors, shrink(model, without_emb, ln="plain"), images)
    vectors.assert_all_read()


def masked(model, keep):
    copy = build(model.dims.model_dump(mode="json")).eval()
    copy.load_state_dict(model.state_dict())
    mask_model(copy, keep)
    return copy


def assert_outputs(vectors, model: PrunedViT, images, *, name):
    found = vectors.matching(f"{name}/(.+)")
    assert found
    with torch.no_grad():
        logits = heads(model, images)
    for key, match in found:
        close(logits[match[1]], vectors.tensor(key))


def assert_wrong_scale(vectors, model, images):
    """The recorded outputs with a scale recomputed from pruned widths must not be ours."""
    with torch.no_grad():
        logits = heads(model, images)
    for key, match in vectors.matching(r"y_wrong_scale_noemb/(.+)"):
        assert (logits[match[1]] - vectors.tensor(key)).abs().max() > 1e-3
