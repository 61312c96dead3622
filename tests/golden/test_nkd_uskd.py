"""NKD, USKD and their reference rows against vectors recorded from the official code (yzd-v/cls_KD, Tf-KD).

Cases are found by their prefix (``c0_``), settings of the reference rows stand in the names of the keys.
"""

import pytest
import torch
import torch.nn.functional as F
from golden_files import require, unknown

from vitops.losses.cross_entropy import cross_entropy
from vitops.losses.dkd import nckd, tckd
from vitops.losses.kd import kd_loss
from vitops.losses.label_smoothing import smoothed_cross_entropy
from vitops.losses.nkd import nkd_nontarget, nkd_target
from vitops.losses.tf_kd import virtual_teacher_loss
from vitops.losses.uskd import rank, soft_target, targets, uskd_loss, zipf

METHOD = "nkd_uskd"
PREFIXES = ("nkd", "uskd")
NUMBER = r"(\d+(?:\.\d+)?)"


def close(actual, expected, *, rtol=1e-5, atol=1e-6):
    torch.testing.assert_close(actual.detach().double(), expected.double(), rtol=rtol, atol=atol)


def test_every_file_is_asserted(golden_dir):
    require(golden_dir / METHOD, PREFIXES)
    assert unknown(golden_dir / METHOD, PREFIXES) == []


def kd(student, teacher, label, a):
    T, alpha = a
    return alpha * kd_loss(student, teacher, temperature=T)


def dkd(student, teacher, label, a):
    T, alpha, beta = a
    parts = (loss(student, teacher, label, temperature=T) for loss in (tckd, nckd))
    return sum(weight * part for weight, part in zip((alpha, beta), parts, strict=True))


def tfkd(student, teacher, label, a):
    alpha, T, multiplier = a
    virtual = virtual_teacher_loss(student, label, temperature=T)
    return (1 - alpha) * cross_entropy(student, label) + alpha * multiplier * virtual


def smoothing(student, teacher, label, a):
    return smoothed_cross_entropy(student, label, smoothing=a[0], spread="others")


ROWS = {
    rf"kd_T{NUMBER}_a{NUMBER}": kd,
    rf"dkd_T{NUMBER}_a{NUMBER}_b{NUMBER}": dkd,
    rf"tfkd_reg_a{NUMBER}_T{NUMBER}_m{NUMBER}": tfkd,
    rf"ls_official_{NUMBER}": smoothing,
}


def looser(*logits):
    """Losses of logits of scale 40 lose a digit: how large they are decides, not the name of the case."""
    return {"rtol": 1e-4 if max(value.abs().max() for value in logits) > 20 else 1e-5, "atol": 1e-6}


@pytest.mark.golden("nkd")
def test_nkd_and_the_reference_rows(vectors):
    cases = [match[1] for _, match in vectors.matching(r"(c\d+)_logit_s")]
    assert cases
    for case in cases:
        assert_nkd(vectors, case)
        for row, loss in ROWS.items():
            for key, match in vectors.matching(rf"{case}_({row})_loss"):
                assert_row(vectors, case, key, setting=[float(part) for part in match.groups()[1:]], loss=loss)
    vectors.assert_all_read()


def assert_nkd(vectors, case):
    student, teacher, label = inputs(vectors, case)
    T, gamma = vectors.scalar(f"{case}_temp"), vectors.scalar(f"{case}_gamma")
    own = nkd_target(student, teacher, label)
    rest = gamma * nkd_nontarget(student, teacher, label, temperature=T)
    tolerance = looser(student, teacher)
    close(own, vectors.tensor(f"{case}_loss_target"), **tolerance)
    close(rest, vectors.tensor(f"{case}_loss_nontarget"), **tolerance)
    close(own + rest, vectors.tensor(f"{case}_loss"), **tolerance)
    [gradient] = torch.autograd.grad(own + rest, student)
    close(gradient, vectors.tensor(f"{case}_grad_s"), **tolerance)


def assert_row(vectors, case, key, *, setting, loss):
    student, teacher, label = inputs(vectors, case)
    found, tolerance = loss(student, teacher, label, setting), looser(student, teacher)
    close(found, vectors.tensor(key), **tolerance)
    [gradient] = torch.autograd.grad(found, student)
    close(gradient, vectors.tensor(key.removesuffix("_loss") + "_grad"), **tolerance)


def inputs(vectors, case):
    student, teacher, label = (vectors.tensor(f"{case}_{name}") for name in ("logit_s", "logit_t", "label"))
    return student.requires_grad_(), teacher, label


@pytest.mark.golden("uskd")
def test_uskd_its_parts_its_gradients_and_its_labels(vectors):
    cases = [match[1] for _, match in vectors.matching(r"(c\d+)_logit_s")]
    assert cases
    for case in cases:
        assert_uskd(vectors, case)
        assert_labels(vectors, case)
    vectors.assert_all_read()


TENSORS = ("logit_s", "fea_mid", "fc_weight", "fc_bias")


def assert_uskd(vectors, case):
    label = vectors.tensor(f"{case}_label")
    given = [vectors.tensor(f"{case}_{name}").requires_grad_() for name in TENSORS]
    logits, feature, weight, bias = given
    alpha, beta, mu = (vectors.scalar(f"{case}_{name}") for name in ("alpha", "beta", "mu"))
    parts = uskd_loss(logits, F.linear(feature, weight, bias), label)
    found = {"target": alpha * parts.target, "nontarget": beta * parts.nontarget, "weak": mu * parts.weak}
    for name, part in found.items():
        close(part, vectors.tensor(f"{case}_part_{name}"))
    total = sum(found.values())
    close(total, vectors.tensor(f"{case}_loss"))
    for name, gradient in zip(TENSORS, torch.autograd.grad(total, given), strict=True):
        close(gradient, vectors.tensor(f"{case}_grad_{name}"))


def assert_labels(vectors, case):
    logits, feature, weight, bias = (vectors.tensor(f"{case}_{name}") for name in TENSORS)
    weak, found = F.linear(feature, weight, bias), targets(vectors.tensor(f"{case}_label"))
    assert torch.equal(found.index, vectors.tensor(f"{case}_target_index"))
    close(soft_target(logits, found), vectors.tensor(f"{case}_soft_target"))
    removed = found.removed(logits.shape[1])
    for mode, prefix in {"code": case, "paper": f"{case}_paper"}.items():
        position = rank(logits, weak, removed, mode=mode)
        assert torch.equal(position, vectors.tensor(f"{prefix}_rank_position"))
        close(zipf(position, removed), vectors.tensor(f"{prefix}_soft_nontarget"))
    alpha, beta, mu = (vectors.scalar(f"{case}_{name}") for name in ("alpha", "beta", "mu"))
    paper = uskd_loss(logits, weak, vectors.tensor(f"{case}_label"), mode="paper")
    close(alpha * paper.target + beta * paper.nontarget + mu * paper.weak, vectors.tensor(f"{case}_paper_loss"))
