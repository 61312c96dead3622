"""FitNets and attention transfer."""

import pytest
import torch
import torch.nn.functional as F
from small_models import CLASSES, FAMILIES, cifar_resnet, cnn, made, vit

from vitops.config.objectives import AttentionTransfer, FitNets
from vitops.errors import UsageError
from vitops.losses import build
from vitops.losses.attention_transfer import attention, attention_loss
from vitops.losses.fitnets import same_size
from vitops.models.tap import Tap

COUNTS = (40, 12, 4, 1)


def sample():
    rng = torch.Generator().manual_seed(0)
    return {
        "input": torch.randn(8, 3, 16, 16, generator=rng),
        "target": torch.randint(0, CLASSES, (8,), generator=rng),
    }


def objective(config, model, **teachers):
    found = teachers or {"teacher": made(cifar_resnet, seed=2)}
    return build(
        config, model=model.eval(), teachers={name: guide.eval() for name, guide in found.items()}, counts=COUNTS
    )


def test_the_attention_of_a_map_by_hand():
    features = torch.tensor([[[[3.0, 0.0]], [[1.0, 2.0]]]])  # (1, 2, 1, 2): mean squares 5 and 2
    torch.testing.assert_close(attention(features), torch.tensor([[5.0, 2.0]]) / 29**0.5)
    assert attention_loss(features, 7 * features) < 1e-12  # strength does not count, only where it is
    other = torch.tensor([[[[0.0, 1.0]]]])
    expected = ((attention(features) - torch.tensor([[0.0, 1.0]])) ** 2).sum() / 2
    torch.testing.assert_close(attention_loss(features, other), expected)


def test_maps_meet_at_the_smaller_height_and_width():
    wide, tall = torch.arange(8.0).view(1, 1, 2, 4), torch.arange(8.0).view(1, 1, 4, 2)
    first, second = same_size(wide, tall)
    assert first.tolist() == [[[[0.5, 2.5], [4.5, 6.5]]]] and second.tolist() == [[[[1.0, 2.0], [5.0, 6.0]]]]


@pytest.mark.parametrize(("side", "other"), [(8, 8), (8, 4), (7, 3), (5, 4), (14, 1)])
def test_a_map_is_pooled_as_torch_does(side, other):
    features = torch.randn(2, 3, side, side)
    [found, _] = same_size(features, torch.zeros(2, 5, other, other))
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(features, other))


@pytest.mark.parametrize("family", FAMILIES)
def test_fitnets_adds_the_distance_of_the_projected_map(family):
    student, guide, given = made(FAMILIES[family]), made(cifar_resnet, seed=2), sample()
    found = objective(FitNets(weight=2.0), student, teacher=guide)
    loss, noted = found.loss(given, torch.Generator())
    tapped, theirs = Tap(student, key="t")(given["input"]), Tap(guide, key="t")(given["input"]).features[0].map
    projected = found.auxiliary["to_teacher"](tapped.features[0].map)
    hint = F.mse_loss(*same_size(projected, theirs))
    torch.testing.assert_close(loss, F.cross_entropy(tapped.logits, given["target"]) + 2 * hint)
    torch.testing.assert_close(noted["hint"] / 8, 2 * hint)
    loss.backward()
    assert all(parameter.grad.ne(0).any() for parameter in found.auxiliary.parameters())
    assert all(parameter.grad is None for parameter in guide.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_transfer_sums_over_the_pairs_of_taps(family):
    student, guide, given = made(FAMILIES[family]), made(cifar_resnet, seed=2), sample()
    pairs = {"student_taps": (0, -1), "teacher_taps": (1, 2)}
    loss, noted = objective(AttentionTransfer(weight=3.0, **pairs), student, teacher=guide).loss(
        given, torch.Generator()
    )
    ours = Tap(student, (0, -1), key="t")(given["input"])
    theirs = Tap(guide, (1, 2), key="t")(given["input"])
    part = sum(attention_loss(a.map, b.map) for a, b in zip(ours.features, theirs.features, strict=True))
    torch.testing.assert_close(loss, F.cross_entropy(ours.logits, given["target"]) + 3 * part)
    torch.testing.assert_close(noted["attention"] / 8, 3 * part)


def test_every_teacher_has_a_projection_of_its_own_width():
    guides = {"teacher": made(cifar_resnet), "second": made(cnn)}
    found = objective(FitNets(teachers={"teacher": 1, "second": 1}), made(vit), **guides)
    widths = {name: conv.weight.shape[:2] for name, conv in found.auxiliary.items()}
    assert widths == {f"to_{role}": (Tap(guide, key="t").widths[0], 16) for role, guide in guides.items()}
    assert torch.isfinite(found.loss(sample(), torch.Generator())[0])


def test_the_order_in_which_teachers_are_written_changes_no_bit():
    guides, found = {"teacher": made(cifar_resnet), "second": made(cnn)}, []
    for names in (("teacher", "second"), ("second", "teacher")):
        torch.manual_seed(0)
        one = objective(FitNets(teachers=dict.fromkeys(names, 0.3)), made(vit), **guides)
        found.append(one.loss(sample(), torch.Generator())[0])
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (FitNets(student_tap=9), "student_tap"),
        (FitNets(teacher_tap=9), "teacher_tap"),
        (AttentionTransfer(student_taps=(0,), teacher_taps=(7,)), "teacher_taps"),
    ],
)
def test_a_tap_that_is_not_there_is_refused_by_its_key(config, key):
    with pytest.raises(UsageError, match=rf"objective\.{key}: got"):
        objective(config, made(vit))
