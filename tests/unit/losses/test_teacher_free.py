"""Objectives that need no teacher: label smoothing, Tf-KD, logit adjustment, and DeiT-LT's weighted CLS part."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import cifar_resnet, deit, made

from vitops.config.objectives import DeitLt, Drw, LabelSmoothing, LogitAdjustment, TfKd
from vitops.errors import UsageError
from vitops.losses import build
from vitops.losses.drw import class_weights
from vitops.losses.label_smoothing import smoothed_cross_entropy
from vitops.losses.logit_adjustment import log_prior
from vitops.losses.tf_kd import virtual_teacher_loss

COUNTS = (40, 12, 4, 1)
C = len(COUNTS)
LOGITS = torch.tensor([[2.0, 0.0, -1.0, 0.5], [0.0, 0.0, 3.0, 1.0]])
LABEL = torch.tensor([0, 3])
MIXED = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.4, 0.6]])


def sample(**more):
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return {"input": images, "target": torch.arange(8) % C, **more}


def loss_of(config, *, model, teachers=None, epoch=0, given=None):
    objective = build(config, model=model, teachers=teachers or {}, counts=COUNTS)
    objective.on_epoch(epoch)
    return objective.loss(given or sample(), torch.Generator())[0]


@pytest.mark.parametrize(("spread", "target", "other"), [("all", 0.925, 0.025), ("others", 0.9, 0.1 / 3)])
def test_the_two_forms_of_label_smoothing_by_hand(spread, target, other):
    log_p = LOGITS.log_softmax(1)
    labels = torch.full((2, C), other).scatter(1, LABEL[:, None], target)
    found = smoothed_cross_entropy(LOGITS, LABEL, smoothing=0.1, spread=spread)
    torch.testing.assert_close(found, -(labels * log_p).sum(1).mean())


@pytest.mark.parametrize("spread", ["all", "others"])
def test_smoothing_a_mixed_label_mixes_smoothed_ones(spread):
    def each(target):
        return smoothed_cross_entropy(LOGITS[:1], target, smoothing=0.1, spread=spread)

    mixed = each(MIXED[:1])
    torch.testing.assert_close(mixed, 0.7 * each(torch.tensor([0])) + 0.3 * each(torch.tensor([1])))
    torch.testing.assert_close(each(F.one_hot(torch.tensor([2]), C).float()), each(torch.tensor([2])))


def test_smoothing_nothing_is_cross_entropy_and_the_objective_smooths():
    assert torch.equal(smoothed_cross_entropy(LOGITS, LABEL, smoothing=0), F.cross_entropy(LOGITS, LABEL))
    model = made(cifar_resnet).eval()
    expected = F.cross_entropy(model(sample()["input"]), sample()["target"], label_smoothing=0.2)
    torch.testing.assert_close(loss_of(LabelSmoothing(smoothing=0.2), model=model), expected)


def test_the_virtual_teacher_by_hand():
    virtual = torch.tensor([[0.99, 0.01 / 3, 0.01 / 3, 0.01 / 3], [0.01 / 3, 0.01 / 3, 0.01 / 3, 0.99]])
    q, log_p = (virtual / 20).softmax(1), LOGITS.log_softmax(1)
    expected = (q * (q.log() - log_p)).sum() / 8
    for label in (LABEL, MIXED):
        torch.testing.assert_close(virtual_teacher_loss(LOGITS, label, temperature=20.0), expected)


def test_tf_kd_shares_between_labels_and_virtual_teacher():
    model = made(cifar_resnet).eval()
    logits = model(sample()["input"])
    virtual = virtual_teacher_loss(logits, sample()["target"], temperature=40.0)
    expected = 0.05 * F.cross_entropy(logits, sample()["target"]) + 0.95 * virtual
    found = loss_of(TfKd(alpha=0.95, temperature=40, multiplier=1), model=model)
    torch.testing.assert_close(found, expected)


def test_the_log_prior_by_hand():
    torch.testing.assert_close(log_prior((3, 1)), torch.tensor([math.log(0.75), math.log(0.25)]))
    with pytest.raises(UsageError, match="training image of every class"):
        log_prior((3, 0))


def test_logit_adjustment_with_tau_one_is_balanced_softmax():
    model = made(cifar_resnet).eval()
    logits = model(sample()["input"])
    weighted = torch.tensor(COUNTS) * logits.exp()  # Ren et al., equation 4
    balanced = weighted / weighted.sum(1, keepdim=True)
    expected = F.nll_loss(balanced.log(), sample()["target"])
    torch.testing.assert_close(loss_of(LogitAdjustment(), model=model), expected)
    plain = F.cross_entropy(logits, sample()["target"])
    torch.testing.assert_close(loss_of(LogitAdjustment(tau=0), model=model), plain)


def test_equal_counts_adjust_nothing():
    model = made(cifar_resnet).eval()
    objective = build(LogitAdjustment(tau=2), model=model, teachers={}, counts=(5, 5, 5, 5))
    found = objective.loss(sample(), torch.Generator())[0]
    torch.testing.assert_close(found, F.cross_entropy(model(sample()["input"]), sample()["target"]))


@pytest.mark.parametrize("epoch", [0, 1])
def test_deit_lt_weighs_the_cls_part_where_asked_and_from_the_drw_epoch_on(epoch):
    model, guide, drw = made(deit).eval(), made(cifar_resnet, seed=2), Drw(epoch=1)

    def base(**values):
        objective = build(DeitLt(drw=drw, **values), model=model, teachers={"teacher": guide}, counts=COUNTS)
        objective.on_epoch(epoch)
        return objective.loss(sample(), torch.Generator())[1]["base"] / 8

    logits = model.forward_features(sample()["input"])[:, 0]
    weight = class_weights(COUNTS, beta=drw.beta) if epoch else None
    plain, weighted = (F.cross_entropy(model.head(logits), sample()["target"], weight=w) for w in (None, weight))
    torch.testing.assert_close(base(), 0.5 * plain)
    torch.testing.assert_close(base(weight_base=True), 0.5 * weighted)
