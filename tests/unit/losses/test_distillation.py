"""Distillation of logits: NKD with its invariants, the losses it is compared with, and what all of them share."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_models import CLASSES, FAMILIES, cifar_resnet, deit, made

from vitops.config.objectives import DeitSoft, Dkd, Kd, Nkd, Ramp
from vitops.config.training import Preprocessing
from vitops.errors import UsageError
from vitops.losses import build
from vitops.losses.cross_entropy import heavier
from vitops.losses.deit_soft import soft_distillation
from vitops.losses.distillation import non_targets, scheduled
from vitops.losses.dkd import nckd, tckd
from vitops.losses.kd import kd_loss
from vitops.losses.label_smoothing import smoothed_cross_entropy
from vitops.losses.nkd import nkd_nontarget, nkd_target
from vitops.losses.teacher import Teacher
from vitops.losses.uskd import uskd_loss
from vitops.models import ModelSpec, attach
from vitops.models.heads import heads, predict

B, C = 6, 7
COUNTS = (40, 12, 4, 1)
T = 3.0


def logits(seed, *, scale=3.0, shape=(B, C)):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


LABEL = torch.tensor([0, 6, 3, 3, 1, 5])
ONE_HOT = F.one_hot(LABEL, C).float()
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT.flip(0)

PAIRS = {
    "nkd target": nkd_target,
    "nkd nontarget": lambda s, t, y: nkd_nontarget(s, t, y, temperature=T),
    "tckd": lambda s, t, y: tckd(s, t, y, temperature=T),
    "nckd": lambda s, t, y: nckd(s, t, y, temperature=T),
    "kd": lambda s, t, y: kd_loss(s, t, temperature=T),
    "soft deit": lambda s, t, y: soft_distillation(s, t, temperature=T),
}


def gradient(loss, student, *others):
    student = student.clone().requires_grad_()
    [found] = torch.autograd.grad(loss(student, *others), student)
    return found


def test_nkd_of_two_classes_by_hand():
    student, teacher = torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, math.log(4)]])
    torch.testing.assert_close(
        nkd_target(student, teacher, torch.tensor([0])), torch.tensor(-0.2 * math.log(0.75)), rtol=1e-6, atol=0
    )
    assert nkd_nontarget(student, teacher, torch.tensor([0]), temperature=2.0) == 0


def test_nkd_of_three_classes_by_hand():
    student, teacher = torch.tensor([[9.0, 2 * math.log(3), 0.0]]), torch.tensor([[5.0, 0.0, 0.0]])
    expected = 4 * -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))  # T = 2: 3/4 and 1/4 against halves
    found = nkd_nontarget(student, teacher, torch.tensor([0]), temperature=2.0)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-6, atol=0)


def test_the_closed_form_gradients_of_nkd():
    student, teacher = logits(0), logits(1)
    p, q = student.softmax(1), teacher.softmax(1)
    confidence = q.gather(1, LABEL[:, None])
    torch.testing.assert_close(gradient(nkd_target, student, teacher, LABEL), confidence * (p - ONE_HOT) / B)
    found = gradient(PAIRS["nkd nontarget"], student, teacher, LABEL)
    ours, theirs = (non_targets(values, LABEL) / T for values in (student, teacher))
    torch.testing.assert_close(non_targets(found, LABEL), T * (ours.softmax(1) - theirs.softmax(1)) / B)
    assert found.gather(1, LABEL[:, None]).eq(0).all()


@pytest.mark.parametrize("name", PAIRS)
def test_gradient_rows_sum_to_zero_and_a_constant_changes_nothing(name):
    student, teacher = logits(0), logits(1)
    rows = gradient(PAIRS[name], student, teacher, LABEL).sum(1)
    torch.testing.assert_close(rows, torch.zeros(B), rtol=0, atol=1e-6)
    shifted = PAIRS[name](student + torch.arange(B)[:, None], teacher - 2, LABEL)
    torch.testing.assert_close(shifted, PAIRS[name](student, teacher, LABEL))


@pytest.mark.parametrize("name", PAIRS)
def test_permuting_classes_or_the_batch_changes_nothing(name):
    student, teacher = logits(0), logits(1)
    loss, order, rows = PAIRS[name](student, teacher, LABEL), torch.randperm(C), torch.randperm(B)
    moved = order.argsort()[LABEL]
    torch.testing.assert_close(PAIRS[name](student[:, order], teacher[:, order], moved), loss)
    torch.testing.assert_close(PAIRS[name](student[rows], teacher[rows], LABEL[rows]), loss)


@pytest.mark.parametrize("name", ["nkd nontarget", "nckd", "tckd", "kd", "soft deit"])
def test_a_student_that_equals_its_teacher_is_at_rest(name):
    found = gradient(PAIRS[name], logits(0), logits(0), LABEL)
    torch.testing.assert_close(found, torch.zeros(B, C), rtol=0, atol=1e-6)


def test_nkd_and_dkd_pull_the_non_target_classes_alike():
    student, teacher = logits(0), logits(1)
    torch.testing.assert_close(
        gradient(PAIRS["nkd nontarget"], student, teacher, LABEL), gradient(PAIRS["nckd"], student, teacher, LABEL)
    )


def test_kd_taken_apart_is_kd():
    student, teacher = logits(0), logits(1)
    q = teacher.softmax(1).gather(1, LABEL[:, None])[:, 0]
    log_p = student.log_softmax(1).gather(1, LABEL[:, None])[:, 0]
    ours, theirs = (non_targets(values, LABEL) for values in (student, teacher))
    rest = (theirs.softmax(1) * ours.log_softmax(1)).sum(1)
    parts = -q * log_p - (1 - q) * (rest + torch.log1p(-log_p.exp()))
    torch.testing.assert_close(parts.mean(), kd_loss(student, teacher, temperature=1.0))


@pytest.mark.parametrize("name", PAIRS)
def test_one_hot_labels_count_as_classes_and_of_a_mixed_one_the_heavier(name):
    student, teacher = logits(0), logits(1)
    hard = PAIRS[name](student, teacher, LABEL)
    assert torch.equal(PAIRS[name](student, teacher, ONE_HOT), hard)
    assert torch.equal(PAIRS[name](student, teacher, MIXED), hard)
    assert torch.equal(heavier(MIXED), LABEL)


@pytest.mark.parametrize("name", PAIRS)
def test_large_logits_give_finite_numbers(name):
    student, teacher = logits(0, scale=40), logits(1, scale=40)
    assert torch.isfinite(PAIRS[name](student, teacher, LABEL))
    assert torch.isfinite(gradient(PAIRS[name], student, teacher, LABEL)).all()


LOSSES = PAIRS | {
    "smoothing": lambda s, t, y: smoothed_cross_entropy(s, y, smoothing=0.1, spread="others"),
    "uskd": lambda s, t, y: sum(vars(uskd_loss(s, t, y)).values()),
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_autocast_stays_near_float32(name, dtype):
    features, weight = logits(2, scale=1.0, shape=(B, 16)), logits(3, scale=0.5, shape=(C, 16))
    full = LOSSES[name](F.linear(features, weight), logits(1, scale=1.0), LABEL)
    with torch.autocast("cpu", dtype):
        half = LOSSES[name](F.linear(features, weight), logits(1, scale=1.0).to(dtype), LABEL)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=2e-2, atol=0)


def test_a_ramp_starts_at_its_start_and_stays_at_its_end():
    linear = Ramp(start=1, end=3, epochs=4)
    assert [linear.at(epoch) for epoch in (0, 1, 2, 4, 9)] == [1, 1.5, 2, 3, 3]
    cosine = Ramp(kind="cosine", start=4, end=0, epochs=2)
    assert [round(cosine.at(epoch), 9) for epoch in (0, 1, 2, 3)] == [4, 2, 0, 0]
    assert scheduled(0.5, 7) == 0.5 and scheduled(linear, 2) == 2


def sample(*, size=8, mixed=False):
    rng = torch.Generator().manual_seed(0)
    found = {
        "input": torch.randn(size, 3, 16, 16, generator=rng),
        "target": torch.randint(0, CLASSES, (size,), generator=rng),
    }
    soft = F.one_hot(found["target"], CLASSES).float()
    return found | ({"mixed": 0.6 * soft + 0.4 * soft.flip(0)} if mixed else {})


def teacher(seed=2):
    return made(cifar_resnet, seed=seed).eval()


def loss_of(objective, given=None):
    torch.manual_seed(3)  # of dropout
    return objective.loss(given or sample(), torch.Generator())


def objective(config, *, model=None, **teachers):
    model = model if model is not None else teacher(1)
    return build(config, model=model, teachers=teachers or {"teacher": teacher()}, counts=COUNTS)


def known(student, guide, given):
    with torch.no_grad():
        return predict(student, given["input"]), guide(given["input"])


@pytest.mark.parametrize("mixed", [False, True])
def test_nkd_is_added_to_the_whole_cross_entropy(mixed):
    given, student, guide = sample(mixed=mixed), teacher(1), teacher()
    loss, noted = loss_of(objective(Nkd(gamma=2.0, temperature=T), model=student, teacher=guide), given)
    ours, theirs = known(student, guide, given)
    label = given.get("mixed", given["target"])
    parts = {
        "base": F.cross_entropy(ours, label),
        "target": nkd_target(ours, theirs, label),
        "nontarget": 2 * nkd_nontarget(ours, theirs, label, temperature=T),
    }
    torch.testing.assert_close(loss, sum(parts.values()))
    for name, part in parts.items():
        torch.testing.assert_close(noted[name] / 8, part)


def test_kd_shares_and_the_smoothing_of_the_cross_entropy_alone():
    given, student, guide = sample(), teacher(1), teacher()
    ours, theirs = known(student, guide, given)
    config = Kd(alpha=0.3, temperature=T, label_smoothing=0.2)
    smooth = F.cross_entropy(ours, given["target"], label_smoothing=0.2)
    expected = 0.7 * smooth + 0.3 * kd_loss(ours, theirs, temperature=T)
    torch.testing.assert_close(loss_of(objective(config, model=student, teacher=guide), given)[0], expected)


def test_several_teachers_share_by_their_weights_and_one_weight_scales_them_all():
    student, one, two, given = teacher(1), teacher(2), teacher(3), sample()
    only = [
        loss_of(objective(Dkd(), model=student, teacher=guide), given)[1]["target"].double() for guide in (one, two)
    ]
    config = Dkd(teachers={"teacher": 1, "second": 3}, weight=2.0)
    loss, noted = loss_of(objective(config, model=student, teacher=one, second=two), given)
    torch.testing.assert_close(noted["target"].double(), 2 * (0.25 * only[0] + 0.75 * only[1]))
    torch.testing.assert_close(noted["loss"], noted["base"] + noted["target"] + noted["nontarget"])
    assert not math.isclose(loss.item(), noted["base"].item() / 8)


def test_weight_and_temperature_follow_the_epoch_alone():
    config = Kd(temperature=Ramp(start=4, end=1, epochs=3), weight=Ramp(kind="cosine", start=0, end=1, epochs=2))
    straight = objective(config)
    for epoch in range(3):
        straight.on_epoch(epoch)
    resumed = objective(config)
    resumed.on_epoch(2)
    assert torch.equal(loss_of(resumed)[0], loss_of(straight)[0])
    assert resumed.temperature == 2.0
    resumed.on_epoch(0)
    assert loss_of(resumed)[1]["distill"] == 0


def test_soft_deit_teaches_dist_and_leaves_cls_to_the_labels():
    student, guide, given = made(deit).eval(), teacher(), sample()
    loss, noted = loss_of(objective(DeitSoft(alpha=0.3, temperature=T), model=student, teacher=guide), given)
    found = heads(student, given["input"])
    base = 0.7 * F.cross_entropy(found["cls"], given["target"])
    kl = F.kl_div((found["dist"] / T).log_softmax(1), (guide(given["input"]) / T).softmax(1), reduction="sum")
    torch.testing.assert_close(loss, base + 0.3 * T**2 * kl / found["dist"].numel())
    assert noted["accuracy"] == (found["cls"].argmax(1) == given["target"]).sum()
    with pytest.raises(UsageError, match="deit_soft needs a distilled model, which CifarResNet is not"):
        objective(DeitSoft())


def test_logits_of_a_teacher_with_another_class_order_are_put_in_ours():
    def spec(names):
        preprocessing = Preprocessing(size=16).parameters()
        return ModelSpec(builder={}, preprocessing=preprocessing, classes=list(names), train_counts=list(COUNTS))

    ours, theirs, x = attach(teacher(1), spec("abcd")), attach(teacher(), spec("cadb")), sample()["input"]
    mapped = Teacher(theirs, student=ours, classes=CLASSES)
    assert torch.equal(mapped.logits(x), theirs(x).detach()[:, [1, 3, 0, 2]])
    assert torch.equal(mapped.logits(x).argmax(1), mapped.predict(x))


@pytest.mark.parametrize("config", [Nkd(), Kd(), Dkd()])
def test_a_missing_teacher_is_refused_by_role(config):
    with pytest.raises(UsageError, match=f"objective {config.kind} needs a model in the role 'teacher', found"):
        objective(config, other=teacher())


@pytest.mark.parametrize("family", FAMILIES)
def test_distillation_leaves_the_teacher_as_it_was(family):
    student, guide = made(FAMILIES[family]).train(), teacher().train()
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    given = objective(Nkd(), model=student, teacher=guide)
    loss_of(given, sample(mixed=True))[0].backward()
    assert not guide.training and all(parameter.grad is None for parameter in guide.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in guide.state_dict().items())
    assert all(parameter.grad is not None for parameter in student.parameters())
