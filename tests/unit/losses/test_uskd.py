import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as holds_for
from hypothesis import settings
from hypothesis import strategies as st
from small_models import CLASSES, FAMILIES, cifar_resnet, made, pruned

from vitops.config.objectives import Uskd
from vitops.errors import UsageError
from vitops.losses import build
from vitops.losses.uskd import rank, soft_target, targets, uskd_loss, zipf

COUNTS = (40, 12, 4, 1)
B, C = 6, 7
LABEL = torch.tensor([0, 6, 3, 3, 1, 5])
ONE_HOT = F.one_hot(LABEL, C).float()
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT.flip(0)
PARTS = ("target", "nontarget", "weak")


def logits(seed, *, scale=3.0, shape=(B, C)):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def total(*args, **kwargs):
    return sum(vars(uskd_loss(*args, **kwargs)).values())


def test_the_labels_by_hand():
    """Three classes of one image; the target is class 0. p = (1/2, 1/4, 1/4)."""
    student, weak = torch.tensor([[math.log(2), 0.0, 0.0]]), torch.tensor([[0.0, math.log(4), 0.0]])
    found = targets(torch.tensor([0]))
    removed = found.removed(3)
    torch.testing.assert_close(soft_target(student, found), torch.tensor([[1.0]]))  # 1/4 + 1 - 1/4
    position = rank(student, weak, removed, mode="paper")  # scores: 0.2 + 1, 0.8 + 0.5, 0.2 + 0.5
    assert position.tolist() == [[1, 0, 2]]
    assert rank(student, weak, removed).tolist() == [[1, 0, 2]]  # 0.2 - 0.41, 0.8 - 0.82, 0.2 - 0.82
    torch.testing.assert_close(zipf(position, removed), torch.tensor([[0.0, 3 / 4, 1 / 4]]))  # of 1 and 1/3
    parts = uskd_loss(student, weak, torch.tensor([0]))
    torch.testing.assert_close(parts.target, torch.tensor(math.log(2)))
    torch.testing.assert_close(parts.nontarget, torch.tensor(math.log(2)))  # the others are even: any label costs this
    smooth = torch.tensor([[0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]])
    torch.testing.assert_close(parts.weak, -(smooth * weak.log_softmax(1)).sum())


@pytest.mark.parametrize(("classes", "best"), [(10, 0.2592), (100, 0.1194), (1000, 0.0771)])
def test_the_best_other_class_behind_a_target_that_ranks_first(classes, best):
    removed = targets(torch.tensor([0])).removed(classes)
    label = zipf(torch.arange(classes)[None], removed)
    assert round(label[0, 1].item(), 4) == best


def test_the_rank_counts_the_target_and_breaks_ties_by_class():
    zeros, removed = torch.zeros(1, 5), targets(torch.tensor([2])).removed(5)
    assert rank(zeros, zeros, removed).tolist() == [[0, 1, 2, 3, 4]]


def test_the_official_code_and_the_text_rank_differently():
    removed = targets(LABEL).removed(C)
    code, paper = (rank(logits(0), logits(1, scale=1.0), removed, mode=mode) for mode in ("code", "paper"))
    assert not torch.equal(code, paper)
    own = logits(0).argsort(1, descending=True).argsort(1)
    assert (code == own).float().mean() > (paper == own).float().mean()


@holds_for(st.integers(0, 10**6), st.integers(3, 12), st.sampled_from(["code", "paper"]))
@settings(deadline=None, max_examples=40)
def test_the_labels_of_hard_targets(seed, classes, mode):
    student, weak = (logits(seed + i, shape=(5, classes)) for i in range(2))
    target = torch.randint(0, classes, (5,), generator=torch.Generator().manual_seed(seed))
    found = targets(target)
    removed = found.removed(classes)
    torch.testing.assert_close(soft_target(student, found).mean(), torch.tensor(1.0))
    position = rank(student, weak, removed, mode=mode)
    label = zipf(position, removed)
    torch.testing.assert_close(label.sum(1), torch.ones(5))
    assert (label > 0).equal(~removed)
    for row in range(5):
        kept = [(position[row, c].item(), label[row, c].item()) for c in range(classes) if c != target[row]]
        assert [share for _, share in sorted(kept)] == sorted((share for _, share in kept), reverse=True)


@pytest.mark.parametrize("mode", ["code", "paper"])
def test_gradients_take_their_own_ways(mode):
    student, weak = logits(0).requires_grad_(), logits(1).requires_grad_()
    parts = vars(uskd_loss(student, weak, LABEL, mode=mode))
    for name in ("target", "nontarget"):
        own, other = torch.autograd.grad(parts[name], (student, weak), retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(own.sum(1), torch.zeros(B), rtol=0, atol=1e-6)
        assert other.eq(0).all()
        assert own.gather(1, LABEL[:, None]).eq(0).all() == (name == "nontarget")
    none, head = torch.autograd.grad(parts["weak"], (student, weak), materialize_grads=True)
    assert none.eq(0).all() and head.ne(0).any()


def test_permuting_classes_or_the_batch_changes_nothing():
    order, rows = torch.randperm(C), torch.randperm(B)
    moved = order.argsort()[LABEL]
    whole = total(logits(0), logits(1), LABEL)
    torch.testing.assert_close(total(logits(0)[:, order], logits(1)[:, order], moved), whole)
    torch.testing.assert_close(total(logits(0)[rows], logits(1)[rows], LABEL[rows]), whole)
    torch.testing.assert_close(
        total(logits(0)[:, order], logits(1)[:, order], MIXED[:, order]), total(logits(0), logits(1), MIXED)
    )


def test_one_hot_labels_count_as_classes_and_mixed_ones_as_two():
    torch.testing.assert_close(total(logits(0), logits(1), ONE_HOT), total(logits(0), logits(1), LABEL))
    found = targets(MIXED)
    assert found.index[0].tolist() == [0, 5] and found.removed(C)[0].tolist() == [c in (0, 5) for c in range(C)]
    assert found.removed(C)[2].sum() == 1  # mixed with its own class: one target
    assert soft_target(logits(0), found)[2, 1] == 0


def test_large_logits_give_finite_numbers():
    student = logits(0, scale=40).requires_grad_()
    for target in (LABEL, MIXED):
        loss = total(student, logits(1, scale=40), target)
        assert torch.isfinite(loss)
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def sample(*, mixed=False):
    rng = torch.Generator().manual_seed(0)
    found = {
        "input": torch.randn(8, 3, 16, 16, generator=rng),
        "target": torch.randint(0, CLASSES, (8,), generator=rng),
    }
    soft = F.one_hot(found["target"], CLASSES).float()
    return found | ({"mixed": 0.6 * soft + 0.4 * soft.flip(0)} if mixed else {})


def uskd(family, **values):
    return build(Uskd(**values), model=made(family).eval(), teachers={}, counts=COUNTS)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES.values(), cifar_resnet, pruned])
def test_uskd_is_added_to_the_cross_entropy_of_any_model(family, mixed):
    objective, given = uskd(family, alpha=0.5, beta=2.0, mu=0.1), sample(mixed=mixed)
    loss, noted = objective.loss(given, torch.Generator())
    student, label = objective._tap(given["input"]), given.get("mixed", given["target"])
    weak = objective.auxiliary["weak"](student.features[0].pooled)
    parts = uskd_loss(student.logits, weak, label)
    expected = F.cross_entropy(student.logits, label) + 0.5 * parts.target + 2 * parts.nontarget + 0.1 * parts.weak
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(noted["loss"], sum(noted[name] for name in ("base", *PARTS)))
    count = sum(parameter.numel() for parameter in objective.auxiliary.parameters())
    assert count == (objective._tap.widths[0] + 1) * CLASSES


def test_the_weak_head_alone_reaches_the_middle_features():
    def gradients(**values):
        torch.manual_seed(0)
        objective = uskd(FAMILIES["vit"], **values)
        objective.loss(sample(), torch.Generator())[0].backward()
        return [parameter.grad for parameter in objective.auxiliary.parameters()]

    for one, other in zip(gradients(alpha=1, beta=0.1, mu=0.1), gradients(alpha=7, beta=0, mu=0.1), strict=True):
        assert torch.equal(one, other) and one.ne(0).any()


def test_two_classes_and_an_unknown_tap_are_refused():
    with pytest.raises(UsageError, match="needs 3, got 2"):
        build(Uskd(), model=made(cifar_resnet), teachers={}, counts=(3, 2))
    with pytest.raises(UsageError, match=r"objective\.mid_tap: got 5"):
        uskd(FAMILIES["vit"], mid_tap=5)
