import math

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from vitops.errors import VitopsError
from vitops.evaluation.analysis import analysis
from vitops.evaluation.attention import attention_distance, patch_distances
from vitops.evaluation.features import energy_rank, feature_rank
from vitops.evaluation.watching import watched
from vitops.models import pruned_vit
from vitops.models.cifar_resnet import CifarResNet
from vitops.models.heads import heads, two_heads

SMALL = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
DIMS = {"img_size": 16, "patch_size": 8, "classes": 3, "distilled": True, "emb": 6, "scale": 0.5}
PRUNED = DIMS | {"h": [2, 1], "qk": [4, 2], "v": [3, 8], "mlp": [16, 12], "ln": {"mode": "plain", "dense_emb": 8}}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def distilled():
    return timm.create_model("deit_tiny_distilled_patch16_224", num_classes=3, **SMALL).eval()


def images(count):
    return torch.randn(count, 3, 16, 16)


def test_distances_are_those_of_patch_centres_in_pixels():
    wanted = [[0, 10, 4, math.hypot(10, 4)], [10, 0, math.hypot(10, 4), 4]]
    torch.testing.assert_close(patch_distances((2, 2), (4, 10))[:2], torch.tensor(wanted, dtype=torch.float64))


def test_a_uniform_head_over_the_papers_grid_has_the_papers_distance():
    distances = patch_distances((14, 14), (16, 16))
    assert float(distances.mean()) == pytest.approx(116.49, abs=0.005)
    uniform = torch.full((1, 1, 198, 198), 1 / 198)
    assert float(attention_distance(uniform, distances, prefix=2)) == pytest.approx(float(distances.mean()))


def test_distance_is_the_mean_over_queries_and_images_with_rows_summing_to_one_again():
    # One row of two patches, 8 pixels apart, behind one prefix token that takes half of the first query.
    first = [[1.0, 0.0, 0.0], [0.5, 0.125, 0.375], [0.0, 1.0, 0.0]]
    second = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    distances = patch_distances((1, 2), (8, 8))
    found = attention_distance(torch.tensor([[first], [second]]), distances, prefix=1)  # (2, 1, 3, 3)
    assert found.tolist() == [pytest.approx((0.75 * 8 + 8 + 0 + 0) / 4)]


def test_attention_to_oneself_and_to_no_patch_has_no_distance():
    distances = patch_distances((2, 2), (8, 8))
    assert attention_distance(torch.eye(5)[None, None], distances, prefix=1).tolist() == [0]
    to_prefix = torch.zeros(1, 1, 5, 5)
    to_prefix[..., 0] = 1
    assert attention_distance(to_prefix, distances, prefix=1).tolist() == [0]


def test_rank_is_the_fewest_directions_that_hold_99_percent():
    assert energy_rank(torch.diag(torch.tensor([10.0, 1.0, 0.5]))) == 2  # 100, 101, 101.25: 98.77 %, 99.75 %
    assert energy_rank(torch.diag(torch.tensor([10.0, 0.5, 0.5]))) == 1  # 100 of 100.5: 99.50 %
    assert energy_rank(torch.zeros(4, 3)) == 0


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_features_of_few_directions_have_no_higher_rank(directions, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(40, directions, generator=generator) @ torch.randn(directions, 8, generator=generator)
    assert 1 <= feature_rank(features) <= directions
    assert feature_rank(features + 100) == feature_rank(features)  # a constant is no direction


@pytest.mark.parametrize("fused_with_mask", [False, True])
def test_the_watched_attention_is_the_softmax_of_the_call(fused_with_mask):
    query, key, value = (torch.randn(2, 3, 5, width) for width in (4, 4, 7))
    mask = torch.randn(5, 5) if fused_with_mask else None
    block = torch.nn.Identity()
    with watched([block]) as seen:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.7)
        block(mixed)
    wanted = (query @ key.transpose(-1, -2) * 0.7 + (mask if mask is not None else 0)).softmax(-1)
    torch.testing.assert_close(seen[0].attention, [wanted])
    torch.testing.assert_close(seen[0].attention[0] @ value, mixed)


@pytest.mark.parametrize("pruned", [False, True])
def test_watching_changes_no_bit_and_leaves_nothing_behind(distilled, pruned):
    model = pruned_vit.build(PRUNED).eval() if pruned else distilled
    x = images(3)
    before = heads(model, x)
    with watched(list(model.blocks)) as seen:
        during = heads(model, x)
    assert all(torch.equal(before[head], during[head]) for head in before)
    assert [block.attention[0].shape[1] for block in seen] == [2, 1 if pruned else 2]
    heads(model, x)
    assert len(seen) == 2


def test_hooks_are_gone_after_an_error(distilled):
    with pytest.raises(RuntimeError), watched(list(distilled.blocks)):
        distilled(torch.randn(1, 7, 16, 16))
    assert not any(block._forward_hooks for block in distilled.blocks)


def test_a_distilled_transformer_is_described_whatever_the_batches(distilled):
    x = images(20)
    found = analysis(distilled, [x[:13], x[13:]])
    assert found["images"] == 20
    assert found["attention_distance"]["uniform"] == pytest.approx((8 + 8 + math.hypot(8, 8)) / 4, abs=1e-4)
    assert [len(block) for block in found["attention_distance"]["blocks"]] == [2, 2]
    assert found["feature_rank"] | {"blocks": None} == {"token": "dist", "width": 8, "blocks": None}
    with torch.inference_mode():
        tokens = two_heads(distilled, x)
        dist = distilled.forward_intermediates(x, return_prefix_tokens=True, intermediates_only=True)
    assert found["expert_diversity"] == pytest.approx(1 - float(tokens.cosine.mean()), abs=1e-6)
    assert found["feature_rank"]["blocks"] == [feature_rank(prefix[:, 1]) for _, prefix in dist]
    again = analysis(distilled, [x])
    assert again["feature_rank"] == found["feature_rank"]
    assert again["attention_distance"]["blocks"][1] == pytest.approx(found["attention_distance"]["blocks"][1], abs=2e-4)


def test_attention_to_oneself_is_seen_in_a_whole_model(distilled):
    """Huge equal queries and keys of orthogonal tokens: every patch looks at itself alone."""
    with torch.no_grad():
        for block in distilled.blocks:
            block.attn.qkv.weight[8:16] = block.attn.qkv.weight[:8] = 1e4 * torch.eye(8)
            block.attn.qkv.bias.zero_()
    found = analysis(distilled, [images(2)])["attention_distance"]["blocks"]
    assert found == [[0.0, 0.0], [0.0, 0.0]]


def test_a_plain_transformer_has_a_cls_token_and_no_two_experts():
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL)
    found = analysis(plain, [images(20)])
    assert found["feature_rank"]["token"] == "cls" and "expert_diversity" not in found


def test_a_pruned_transformer_has_a_number_per_head_that_is_left():
    found = analysis(pruned_vit.build(PRUNED), [images(20)])
    assert [len(block) for block in found["attention_distance"]["blocks"]] == [2, 1]
    assert found["feature_rank"]["width"] == 6


def test_too_few_images_give_no_rank_but_say_so(distilled):
    found = analysis(distilled, [images(8)])
    assert found["feature_rank"]["skipped"] == "8 images cannot show the rank of features 8 wide"
    assert len(found["attention_distance"]["blocks"]) == 2


def test_a_model_without_attention_over_its_patches_is_skipped_with_the_reason():
    assert (
        "CifarResNet is no plain vision transformer" in analysis(CifarResNet(8, num_classes=3), [images(2)])["skipped"]
    )
    pooled = timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg", **SMALL)
    assert analysis(pooled, [images(2)])["skipped"].endswith("it has no cls_token")
    unfused = timm.create_model("vit_tiny_patch16_224", **SMALL)
    for block in unfused.blocks:
        block.attn.fused_attn = False
    assert "block 0 of VisionTransformer calls fused attention 0 times" in analysis(unfused, [images(2)])["skipped"]


def test_no_image_at_all_is_an_error(distilled):
    with pytest.raises(VitopsError, match="the subset is empty"):
        analysis(distilled, [])
