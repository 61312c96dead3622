import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vitops.config.models import CifarResNet, TimmModel
from vitops.config.objectives import CrossEntropy, DeitLt, Drw, Ldam, Nvit
from vitops.config.training import Preprocessing
from vitops.errors import UsageError, VitopsError
from vitops.losses import build
from vitops.losses.cross_entropy import cross_entropy
from vitops.losses.deit_lt import deit_lt_loss
from vitops.losses.drw import DeferredWeights, class_weights
from vitops.losses.ldam import margins
from vitops.losses.nvit import divergence
from vitops.losses.teacher import Teacher, resize
from vitops.models import ModelSpec, attach
from vitops.models import build as build_model

COUNTS = (40, 12, 4, 1)
C = len(COUNTS)
NAMES = ["a", "b", "c", "d"]
K = 3
DRW = Drw(epoch=K)


def student(name="deit_tiny_distilled_patch16_224"):
    torch.manual_seed(1)
    args = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return build_model(TimmModel(name=name, args=args), classes=C)


def resnet(head="linear", classes=C):
    torch.manual_seed(2)
    return build_model(CifarResNet(depth=8, head=head), classes=classes).train()


def micro_batch(*, mixed=False, size=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    sample = {
        "input": torch.randn(size, 3, 16, 16, generator=rng),
        "target": torch.randint(0, C, (size,), generator=rng),
    }
    return sample | ({"mixed": torch.rand(size, C, generator=rng).softmax(1)} if mixed else {})


def deit_lt(config=None, *, model=None, teacher=None):
    model = model or student()
    config = config or DeitLt(drw=DRW)
    return build(config, model=model, teachers={"teacher": teacher or resnet()}, counts=COUNTS)


def loss_of(objective, sample):
    return objective.loss(sample, torch.Generator().manual_seed(0))


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=50), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 0.9999]))
@settings(deadline=None, max_examples=50)
def test_drw_weights_sum_to_the_number_of_classes_and_never_favour_the_more_frequent(counts, beta):
    weights = class_weights(sorted(counts, reverse=True), beta=beta)
    assert math.isclose(weights.double().sum().item(), len(counts), rel_tol=1e-5)
    assert (weights.diff() >= -1e-6).all()


@given(st.integers(1, 10**6), st.integers(1, 30), st.floats(0, 0.99999))
@settings(deadline=None, max_examples=50)
def test_drw_weights_of_equal_counts_are_ones(count, classes, beta):
    torch.testing.assert_close(class_weights([count] * classes, beta=beta), torch.ones(classes))


def test_beta_zero_gives_ones():
    assert torch.equal(class_weights(COUNTS, beta=0.0), torch.ones(C))


def test_a_class_without_a_sample_has_no_weight():
    with pytest.raises(UsageError, match="training image of every class"):
        class_weights([3, 0], beta=0.9)


def test_weights_start_at_the_drw_epoch():
    deferred = DeferredWeights(DRW, counts=COUNTS)
    assert [deferred.at(epoch) is None for epoch in range(6)] == [True] * K + [False] * (6 - K)
    assert torch.equal(deferred.at(K), class_weights(COUNTS, beta=0.9999))
    assert DeferredWeights(None, counts=COUNTS).at(10**6) is None


@pytest.mark.parametrize("weights", [None, torch.tensor([0.1, 0.4, 1.2, 2.3])])
def test_one_hot_soft_labels_give_the_hard_loss(weights):
    logits, target = torch.randn(6, C), torch.tensor([0, 1, 2, 3, 3, 1])
    hard = cross_entropy(logits, target, weights=weights)
    torch.testing.assert_close(cross_entropy(logits, F.one_hot(target, C).float(), weights=weights), hard)


def test_the_weighted_mean_is_normalised_by_the_weights_present():
    logits, target, weights = torch.randn(3, C), torch.tensor([3, 3, 3]), torch.tensor([1.0, 1.0, 1.0, 9.0])
    torch.testing.assert_close(
        cross_entropy(logits, target, weights=weights), cross_entropy(logits, target), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("make", [resnet, student])
def test_cross_entropy_learns_from_the_mean_logits(make):
    model, sample = make().eval(), micro_batch()
    loss, noted = loss_of(build(CrossEntropy(), model=model, teachers={}, counts=COUNTS), sample)
    logits = model(sample["input"])
    torch.testing.assert_close(loss, F.cross_entropy(logits, sample["target"]))
    assert noted["accuracy"].item() == (logits.argmax(1) == sample["target"]).sum().item()


def test_cross_entropy_takes_the_mixed_label_where_there_is_one():
    model, sample = resnet().eval(), micro_batch(mixed=True)
    loss, _ = loss_of(build(CrossEntropy(), model=model, teachers={}, counts=COUNTS), sample)
    torch.testing.assert_close(loss, F.cross_entropy(model(sample["input"]), sample["mixed"]))


def test_the_rarest_class_has_the_largest_margin():
    found = margins(COUNTS, max_margin=0.5)
    assert found[-1] == 0.5 and (found.diff() > 0).all()
    torch.testing.assert_close(found[0] / found[1], torch.tensor((12 / 40) ** 0.25))


def test_ldam_refuses_a_head_that_gives_no_cosines():
    with pytest.raises(UsageError, match="head: cosine"):
        build(Ldam(), model=resnet("linear"), teachers={}, counts=COUNTS)


def test_ldam_never_mixes_and_weighs_from_the_drw_epoch_on():
    objective, sample = build(Ldam(drw=DRW), model=resnet("cosine").eval(), teachers={}, counts=COUNTS), micro_batch()
    assert not any(objective.mixes(epoch) for epoch in range(6))
    losses = []
    for epoch in range(6):
        objective.on_epoch(epoch)
        losses.append(loss_of(objective, sample)[0].item())
    assert len(set(losses[:K])) == len(set(losses[K:])) == 1 and losses[0] != losses[K]


def test_ldam_costs_more_than_scaled_cross_entropy():
    model, sample = resnet("cosine").eval(), micro_batch()
    loss, _ = loss_of(build(Ldam(), model=model, teachers={}, counts=COUNTS), sample)
    assert loss > F.cross_entropy(30 * model(sample["input"]), sample["target"])


def test_each_part_moves_its_own_head_alone():
    cls_logits, dist_logits = (torch.randn(6, C, requires_grad=True) for _ in range(2))
    hard = torch.randint(0, C, (6,))
    parts = deit_lt_loss(cls_logits, dist_logits, target=hard, teacher=hard, alpha=0.5, weights=torch.rand(C))
    zero, own = torch.autograd.grad(parts.distill, (cls_logits, dist_logits), materialize_grads=True, retain_graph=True)
    assert zero.eq(0).all() and own.ne(0).any()
    own, zero = torch.autograd.grad(parts.base, (cls_logits, dist_logits), materialize_grads=True)
    assert zero.eq(0).all() and own.ne(0).any()


def test_the_weights_follow_the_teachers_prediction():
    logits, weights = torch.randn(2, C), torch.tensor([1.0, 1.0, 1.0, 5.0])
    named, truth = torch.tensor([0, 3]), torch.tensor([3, 0])
    parts = deit_lt_loss(logits, logits, target=truth, teacher=named, alpha=1.0, weights=weights)
    each = F.cross_entropy(logits, named, reduction="none")
    torch.testing.assert_close(parts.distill, (each[0] + 5 * each[1]) / 6)


def test_before_the_drw_epoch_the_weights_have_no_effect():
    plain, weighted = deit_lt(DeitLt()), deit_lt(DeitLt(drw=Drw(epoch=K, beta=0.99)))
    for epoch in range(K):
        plain.on_epoch(epoch)
        weighted.on_epoch(epoch)
        assert torch.equal(loss_of(plain, micro_batch())[0], loss_of(weighted, micro_batch())[0])


@pytest.mark.parametrize("resumed_at", [K - 1, K, K + 1])
def test_a_resume_around_the_switch_is_right_from_the_epoch_number_alone(resumed_at):
    straight, sample = deit_lt(), micro_batch()
    for epoch in range(resumed_at + 1):
        straight.on_epoch(epoch)
    resumed = deit_lt()
    resumed.load_state_dict(straight.state_dict())
    resumed.on_epoch(resumed_at)
    assert torch.equal(loss_of(resumed, sample)[0], loss_of(straight, sample)[0])
    assert resumed.mixes(resumed_at) == straight.mixes(resumed_at) == (resumed_at < K)


def test_mixing_stays_on_where_asked():
    kept = deit_lt(DeitLt(drw=DRW, mix_off_in_drw=False))
    assert all(kept.mixes(epoch) for epoch in range(2 * K))
    assert [deit_lt().mixes(epoch) for epoch in range(5)] == [True, True, True, False, False]
    assert all(deit_lt(DeitLt()).mixes(epoch) for epoch in range(5))


def test_training_leaves_the_teacher_as_it_was():
    teacher, model = resnet(), student()
    objective = deit_lt(model=model, teacher=teacher)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    for seed in range(2):
        model.train()
        sgd.zero_grad()
        loss_of(objective, micro_batch(mixed=True, seed=seed))[0].backward()
        sgd.step()
    assert not teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_teacher_sees_the_students_images():
    class Recorder(torch.nn.Module):
        def forward(self, x):
            self.seen = x
            return x.mean((2, 3))[:, [0, 1, 2, 0]]

    teacher, sample = Recorder(), micro_batch(mixed=True)
    loss_of(deit_lt(teacher=teacher), sample)
    assert torch.equal(teacher.seen, sample["input"])
    loss_of(deit_lt(DeitLt(teacher_size=8), teacher=teacher), sample)
    assert torch.equal(teacher.seen, F.interpolate(sample["input"], size=(8, 8), mode="bicubic"))


def test_antialiasing_changes_a_smaller_view():
    x = torch.randn(2, 3, 16, 16)
    assert not torch.allclose(resize(x, 8, antialias=False), resize(x, 8, antialias=True), atol=0.1)
    assert resize(x, 16, antialias=True) is x and resize(x, None, antialias=True) is x


def spec(names=NAMES, **preprocessing):
    return ModelSpec(
        builder={},
        preprocessing=Preprocessing(size=16, **preprocessing).parameters(),
        classes=list(names),
        train_counts=list(COUNTS),
    )


def test_renormalisation_gives_the_teacher_its_own_statistics():
    ours = attach(student(), spec(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)))
    theirs = attach(resnet(), spec(mean=(0.1, 0.2, 0.3), std=(1.0, 0.5, 0.25)))
    teacher = Teacher(theirs, student=ours, classes=C, renormalize=True)
    pixels = torch.rand(2, 3, 4, 4)

    def normalised(mean, std):
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    seen = teacher.view(normalised((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    torch.testing.assert_close(seen, normalised((0.1, 0.2, 0.3), (1.0, 0.5, 0.25)))


def test_renormalisation_without_known_statistics_is_refused():
    with pytest.raises(UsageError, match="mean and std of the student are unknown"):
        deit_lt(DeitLt(teacher_renormalize=True))


def test_a_teacher_with_another_class_order_is_mapped_by_name():
    ours, theirs, x = (
        attach(student(), spec()),
        attach(resnet(), spec(["c", "a", "d", "b"])),
        torch.randn(20, 3, 16, 16),
    )
    raw = Teacher(resnet(), student=ours, classes=C)
    mapped = Teacher(theirs.eval(), student=ours, classes=C)
    raw.module.eval()
    assert torch.equal(mapped.predict(x), torch.tensor([2, 0, 3, 1])[raw.predict(x)])


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(UsageError, match="knows 7 classes but the data has 4"):
        deit_lt(teacher=resnet(classes=7))
    with pytest.raises(UsageError, match="do not share their classes"):
        deit_lt(model=attach(student(), spec()), teacher=attach(resnet(), spec(["a", "b", "c", "x"])))


def test_deit_lt_refuses_a_missing_teacher_and_a_plain_student():
    with pytest.raises(UsageError, match="role 'teacher'"):
        build(DeitLt(), model=student(), teachers={}, counts=COUNTS)
    with pytest.raises(UsageError, match="no distillation token"):
        build(DeitLt(), model=student("deit_tiny_patch16_224"), teachers={"teacher": resnet()}, counts=COUNTS)


def test_alpha_zero_needs_no_teacher_and_leaves_the_dist_head_at_rest():
    model = student()
    objective = build(DeitLt(alpha=0.0), model=model, teachers={}, counts=COUNTS)
    loss, noted = loss_of(objective, micro_batch())
    loss.backward()
    assert model.head_dist.weight.grad.eq(0).all() and "teacher_labels" not in noted


def test_the_loss_does_not_depend_on_the_models_mode():
    objective, sample = deit_lt(), micro_batch()
    objective.model.train()
    train = loss_of(objective, sample)[0]
    objective.model.eval()
    assert torch.equal(train, loss_of(objective, sample)[0])


def steps():
    objective = deit_lt()
    return objective, [[loss_of(objective, micro_batch(seed=4 * step + m))[1] for m in range(4)] for step in range(3)]


def test_the_summary_holds_means_per_sample_and_the_teachers_histogram():
    objective, noted = steps()
    for contributions in noted:
        objective.merge(contributions)
    found = objective.summary()
    flat = [contribution for step in noted for contribution in step]
    assert found["loss"] == sum(value["loss"].double() for value in flat).item() / 96
    assert math.isclose(found["base"] + found["distill"], found["loss"], rel_tol=1e-6)
    assert -1 <= found["cosine"] <= 1
    assert found["teacher_labels"] == sum(value["teacher_labels"] for value in flat).tolist()
    assert sum(found["teacher_labels"]) == 96
    assert objective.state_dict() == {}


def test_an_epoch_interrupted_and_resumed_notes_the_same():
    objective, noted = steps()
    for contributions in noted:
        objective.merge(contributions)
    resumed = deit_lt()
    resumed.merge(noted[0])
    state = resumed.state_dict()
    resumed = deit_lt()
    resumed.load_state_dict(state)
    for contributions in noted[1:]:
        resumed.merge(contributions)
    assert resumed.summary() == objective.summary()


def test_state_of_another_objective_is_refused():
    with pytest.raises(VitopsError, match="written by another objective"):
        deit_lt().load_state_dict({"fisher.head": torch.zeros(1)})


def nvit(model, dense, **values):
    teachers = {"teacher": resnet()} | ({"dense": dense} if dense is not None else {})
    return build(Nvit(**values), model=model, teachers=teachers, counts=COUNTS)


def test_a_model_that_equals_the_dense_one_pays_no_divergence():
    model, sample = student(), micro_batch()
    loss, noted = loss_of(nvit(model, student()), sample)
    assert abs(noted["kl"].item()) < 1e-5
    torch.testing.assert_close(loss, loss_of(deit_lt(DeitLt(), model=model), sample)[0])


def test_the_divergence_is_the_mean_over_the_batch_at_the_temperature():
    ours, theirs = torch.randn(5, C), torch.randn(5, C)
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    torch.testing.assert_close(divergence(ours, theirs, temperature=3.0), (p * (p / q).log()).sum() / 5)


def test_nvit_adds_the_weighted_divergence_of_the_mean_logits():
    model, dense, sample = student(), student(), micro_batch()
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(0.1)
    loss, noted = loss_of(nvit(model, dense, kl_weight=10.0, temperature=2.0), sample)
    kl = divergence(model.eval()(sample["input"]), dense.eval()(sample["input"]), temperature=2.0)
    base = loss_of(deit_lt(DeitLt(), model=model), sample)[0]
    torch.testing.assert_close(loss, base + 10 * kl)
    torch.testing.assert_close(noted["kl"] / 8, kl.detach())
    assert not dense.training and not any(parameter.requires_grad for parameter in dense.parameters())


def test_nvit_follows_the_distilled_objective_through_the_switch():
    objective = nvit(student(), student(), distill=DeitLt(drw=DRW))
    assert [objective.mixes(epoch) for epoch in range(5)] == [True, True, True, False, False]
    before = loss_of(objective, micro_batch())[0]
    objective.on_epoch(K)
    assert loss_of(objective, micro_batch())[0] != before


def test_nvit_needs_the_dense_model_only_while_it_counts():
    with pytest.raises(UsageError, match="role 'dense'"):
        nvit(student(), None)
    _, noted = loss_of(nvit(student(), None, kl_weight=0.0), micro_batch())
    assert "kl" not in noted
