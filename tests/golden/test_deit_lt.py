"""DeiT-LT against vectors recorded from the official code (val-iisc/DeiT-LT and its SAM, LDAM and data set files)."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import require, unknown
from torch import nn

from vitops.config.models import TimmModel
from vitops.config.training import Optimizer, Sam
from vitops.data.accuracy import class_groups, score
from vitops.data.loader import order_places
from vitops.data.splits.longtail import longtail_counts, official_selection
from vitops.evaluation.analysis import expert_diversity
from vitops.evaluation.attention import attention_distance, patch_distances
from vitops.evaluation.features import energy_rank, feature_rank
from vitops.losses.cross_entropy import cross_entropy
from vitops.losses.deit_lt import Parts, deit_lt_loss
from vitops.losses.deit_soft import soft_distillation
from vitops.losses.drw import class_weights
from vitops.losses.ldam import ldam_loss, margins
from vitops.losses.paco import paco_loss
from vitops.losses.teacher import hard_labels, resize
from vitops.models import build, heads
from vitops.models.heads import TwoHeads, two_heads
from vitops.training.optimizer import build as build_optimizer
from vitops.training.sam import perturbed

METHOD = "deit_lt"
PREFIXES = (
    *("longtail", "drw", "distill_loss", "sam", "eval", "distilled_vit", "teacher_resize", "teacher_losses"),
    *("analysis", "repeat_aug"),
)

PUBLISHED = {
    "imagenet_lt": {"total": 115846, "groups": (385, 479, 136), "weights": (0.03164, 7.60481)},
    "inat18": {"total": 437513, "groups": (842, 4076, 3224), "weights": (0.02184, 10.39095)},
}


def close(actual, expected, *, rtol=0.0, atol=0.0):
    found, wanted = (torch.as_tensor(value, dtype=torch.float64) for value in (actual, expected))
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


def test_every_file_is_asserted(golden_dir):
    require(golden_dir / METHOD, PREFIXES)
    assert unknown(golden_dir / METHOD, PREFIXES) == []


@pytest.mark.golden("longtail")
def test_longtail_counts_and_selection(vectors):
    for key, match in vectors.matching(r"cifar(\d+)_(exp|step)_if([\d.]+)"):
        classes, imbalance, factor = int(match[1]), match[2], float(match[3])
        counts = longtail_counts(50000, classes=classes, imbalance=imbalance, imbalance_factor=factor)
        assert_counts(counts, vectors[key], step=imbalance == "step")
    for key, match in vectors.matching(r"cifar(\d+)_if([\d.]+)_seed(\d+)_within_class_rank"):
        assert_cifar_selection(vectors, key, match)
    for key, match in vectors.matching(r"(.+)_sorted"):
        assert_fixed_list(vectors[key], name=match[1])
    for _, match in vectors.matching(r"(s\d+)_labels"):
        assert_small_selection(vectors, match[1])
    vectors.assert_all_read()


def assert_counts(counts, expected, *, step):
    """Equal, but that the official step counts of an odd number of classes leave out the last class, a tail class."""
    if step and len(counts) % 2 and len(expected) == len(counts) - 1:
        assert counts[-1] == counts[-2]
        counts = counts[:-1]
    assert counts.tolist() == expected.tolist()


def assert_cifar_selection(vectors, key, match):
    classes, factor, seed = int(match[1]), float(match[2]), int(match[3])
    size = 50000 // classes
    labels = np.repeat(np.arange(classes), size)
    counts = longtail_counts(50000, classes=classes, imbalance="exp", imbalance_factor=factor)
    index = official_selection(labels, counts, seed=seed)
    assert np.array_equal(index - size * labels[index], vectors[key])
    assert np.array_equal(labels[index], vectors[key.replace("_within_class_rank", "_targets")])


def assert_fixed_list(counts, *, name):
    assert (np.diff(counts) <= 0).all()
    groups = class_groups(counts.tolist())
    weights = class_weights(counts.tolist(), beta=0.9999)
    close(weights.sum(), len(counts), rtol=1e-5)
    if name in PUBLISHED:
        facts = PUBLISHED[name]
        assert counts.sum() == facts["total"]
        assert tuple(len(groups[group]) for group in ("many", "medium", "few")) == facts["groups"]
        close([weights.min(), weights.max()], facts["weights"], rtol=2e-4)


def assert_small_selection(vectors, case):
    labels, fraction = vectors[f"{case}_labels"], vectors.scalar(f"{case}_imb_factor")
    step = bool(vectors.scalar(f"{case}_is_step"))
    counts = longtail_counts(
        len(labels),
        classes=int(labels.max()) + 1,
        imbalance="step" if step else "exp",
        imbalance_factor=inverse(fraction),
    )
    expected = vectors[f"{case}_counts"]
    assert_counts(counts, expected, step=step)
    index = official_selection(labels, counts, seed=vectors.scalar(f"{case}_seed"))[: expected.sum()]
    assert np.array_equal(index, vectors[f"{case}_index"])
    assert np.array_equal(labels[index], vectors[f"{case}_targets"])


def inverse(fraction):
    """The imbalance factor whose reciprocal is exactly ``fraction``, as floor on a product would show an ulp."""
    factor = 1 / fraction
    candidates = (round(factor), factor, math.nextafter(factor, 0), math.nextafter(factor, math.inf))
    return next((value for value in candidates if value >= 1 and 1 / value == fraction), factor)


@pytest.mark.golden("drw")
def test_drw_weights(vectors):
    for key, match in vectors.matching(r"(.+)_w_beta([\d.]+)"):
        counts = vectors[f"{match[1]}_counts"].tolist()
        weights = class_weights(counts, beta=float(match[2]))
        close(weights, vectors[key], rtol=1e-5)
        close(weights.sum(), len(counts), rtol=1e-5)
    vectors.assert_all_read()


@pytest.mark.golden("distill_loss")
def test_distillation_loss_and_gradients(vectors):
    weights, counts = vectors["weights"], vectors["counts"].tolist()
    betas = (0.0, 0.9, 0.99, 0.999, 0.9999)
    assert any(np.allclose(class_weights(counts, beta=beta), weights, rtol=1e-5, atol=0) for beta in betas)
    for key, match in vectors.matching(r"(.+)_loss"):
        assert_distillation_case(vectors, match[1], loss=vectors[key])
    vectors.are_inputs("teacher_logits", "labels", "soft_labels", "class_map", "alpha")
    vectors.assert_all_read()


def assert_distillation_case(vectors, case, *, loss):
    cls_logits = vectors.tensor("cls_logits").requires_grad_()
    dist_logits = vectors.tensor("dist_logits").requires_grad_()
    parts = distillation_parts(vectors, case, cls_logits, dist_logits)
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    close(parts.total.detach(), loss, **tolerance)
    close(parts.base.detach(), vectors[f"{case}_base_part"], **tolerance)
    close(parts.distill.detach(), vectors[f"{case}_dist_part"], **tolerance)
    grad_cls, grad_dist = torch.autograd.grad(parts.total, (cls_logits, dist_logits))
    close(grad_cls, vectors[f"{case}_grad_cls"], **tolerance)
    close(grad_dist, vectors[f"{case}_grad_dist"], **tolerance)


def distillation_parts(vectors, case, cls_logits, dist_logits):
    """The settings of a case stand in its name."""
    soft = re.fullmatch(r"soft_T(\d+)_a(\d)(\d*)", case)
    labels, mixed, weights = (vectors.tensor(name) for name in ("labels", "soft_labels", "weights"))
    if soft:
        return soft_parts(vectors, cls_logits, dist_logits, T=float(soft[1]), alpha=float(f"{soft[2]}.{soft[3] or 0}"))
    assert case in ("pre_drw", "drw", "drw_mixup_kept", "drw_mapped", "drw_base_weighted"), f"unknown case {case}"
    alpha = vectors.scalar("alpha")
    class_map = vectors.tensor("class_map") if case == "drw_mapped" else None
    return deit_lt_loss(
        cls_logits,
        dist_logits,
        target=labels if case in ("drw", "drw_base_weighted") else mixed,
        teacher=hard_labels(vectors.tensor("teacher_logits"), class_map=class_map),
        alpha=alpha,
        weights=None if case == "pre_drw" else weights,
        weight_base=case == "drw_base_weighted",
    )


def soft_parts(vectors, cls_logits, dist_logits, *, T, alpha):
    soft = soft_distillation(dist_logits, vectors.tensor("teacher_logits"), temperature=T)
    base = cross_entropy(cls_logits, vectors.tensor("soft_labels"))
    return Parts(base=(1 - alpha) * base, distill=alpha * soft)


@pytest.mark.golden("sam")
def test_sam_steps(vectors):
    net = TanhNet({name: vectors.tensor(f"init_{name}") for name in ("w1", "b1", "w2", "b2")})
    values = {name: vectors.scalar(name) for name in ("lr", "momentum", "weight_decay")}
    sgd = build_optimizer(Optimizer(name="sgd", decay_1d=True, **values), net)
    adaptive = bool(vectors.scalar("adaptive")) if "adaptive" in vectors else False
    for step in range(len(vectors["x"])):
        assert_sam_step(vectors, step, net, sgd, sam=Sam(rho=vectors.scalar("rho"), adaptive=adaptive))
    vectors.assert_all_read()


class TanhNet(nn.Module):
    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            self.register_parameter(name, nn.Parameter(value))

    def loss(self, x, y):
        hidden = torch.tanh(F.linear(x, self.w1, self.b1))
        return cross_entropy(F.linear(hidden, self.w2, self.b2), y)


def assert_sam_step(vectors, step, net, optimizer, *, sam):
    x, y = vectors.tensor("x")[step], vectors.tensor("y")[step]

    def check(kind, tensors):
        for name, tensor in tensors.items():
            close(tensor.detach(), vectors[f"t{step}_{kind}_{name}"], atol=1e-6)

    def descend(kind, loss_name):
        net.zero_grad()
        loss = net.loss(x, y)
        loss.backward()
        close(loss.detach(), vectors[f"t{step}_{loss_name}"], atol=1e-6)
        check(kind, {name: parameter.grad for name, parameter in net.named_parameters()})

    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    descend("grad", "loss")
    with perturbed(list(net.parameters()), rho=sam.rho, adaptive=sam.adaptive) as norm:
        close(norm, vectors[f"t{step}_grad_norm"], atol=1e-6)
        check("perturbed", dict(net.named_parameters()))
        descend("grad_perturbed", "loss_perturbed")
    assert all(torch.equal(parameter, before[name]) for name, parameter in net.named_parameters())
    optimizer.step()
    check("after", dict(net.named_parameters()))


@pytest.mark.golden("eval")
def test_accuracy_by_head_and_group(vectors):
    cls_logits, dist_logits = vectors.tensor("cls_logits"), vectors.tensor("dist_logits")
    logits = {"cls": cls_logits, "dist": dist_logits, "avg": (cls_logits + dist_logits) / 2}
    first, second = vectors["group_boundaries"].tolist()
    classes = cls_logits.shape[1]
    scores = {
        head: score(values, vectors.tensor("labels"), train_counts=[1] * classes, boundaries=(first, second))
        for head, values in logits.items()
    }
    for key, match in vectors.matching(r"out_acc([15])_(cls|dist|avg)"):
        found = scores[match[2]]["overall"] if match[1] == "1" else scores[match[2]].get("top5", 100.0)
        close(found, vectors[key], atol=1e-3)
    official = {"head": "head", "med": "mid", "tail": "tail"}
    for key, match in vectors.matching(r"out_(head|med|tail)_acc_(cls|dist|avg)"):
        close(scores[match[2]][official[match[1]]], vectors[key], atol=1e-3)
    vectors.assert_all_read()


@pytest.mark.golden("distilled_vit")
def test_official_weights_give_the_official_logits(vectors):
    [(key, match)] = vectors.matching(r"cfg_(.+)")
    setting = dict(zip(match[1].split("_"), vectors[key].tolist(), strict=True))
    state = {match[1]: vectors.tensor(name) for name, match in vectors.matching(r"sd:(.+)")}
    model = distilled_vit(setting, hidden=len(state["blocks.0.mlp.fc1.bias"]))
    model.load_state_dict(state)
    x = vectors.tensor("x")
    for mode in (True, False):
        found = heads(model.train(mode), x)
        for head, name in {"cls": "cls_logits", "dist": "dist_logits", "mean": "avg_logits"}.items():
            close(found[head].detach(), vectors[name], atol=1e-5)
    close(two_heads(model.train(), x).cosine.detach(), vectors["train_cos_sim"], atol=1e-5)
    vectors.assert_all_read()


def distilled_vit(setting, *, hidden):
    args = {
        "img_size": setting["img"],
        "patch_size": setting["patch"],
        "embed_dim": setting["dim"],
        "depth": setting["depth"],
        "num_heads": setting["heads"],
        "mlp_ratio": hidden / setting["dim"],
    }
    return build(TimmModel(name="deit_tiny_distilled_patch16_224", args=args), classes=setting["classes"])


@pytest.mark.golden("teacher_resize")
def test_teacher_resize(vectors):
    x, size = vectors.tensor("x"), vectors.scalar("size")
    for key, match in vectors.matching(r"out_antialias_(on|off)"):
        close(resize(x, size, antialias=match[1] == "on"), vectors[key], atol=1e-5)
    vectors.assert_all_read()


@pytest.mark.golden("teacher_losses")
def test_ldam_rows_of_the_teacher_losses(vectors):
    counts, scale, maximum = vectors["counts"].tolist(), vectors.scalar("s"), vectors.scalar("max_m")
    margin = margins(counts, max_margin=maximum)
    close(margin, vectors["margins"], rtol=1e-5)
    for case, weights in {"ldam": None, "ldam_drw": vectors.tensor("drw_weights")}.items():
        cosines = vectors.tensor("cos_logits").requires_grad_()
        loss = ldam_loss(cosines, vectors.tensor("labels"), margin=margin, scale=scale, weights=weights)
        close(loss.detach(), vectors[f"{case}_loss"], rtol=1e-5, atol=1e-5)
        close(torch.autograd.grad(loss, cosines)[0], vectors[f"{case}_grad"], rtol=1e-5, atol=1e-5)
    assert_paco_rows(vectors)
    vectors.assert_all_read()


@pytest.mark.golden("analysis")
def test_attention_distance_rank_and_diversity(vectors):
    attention, prefix = vectors.tensor("attention"), vectors.scalar("num_prefix")
    grid, patch = vectors.scalar("grid"), vectors.scalar("patch")
    distances = patch_distances((grid, grid), (patch, patch))
    close(attention_distance(attention, distances, prefix=prefix), vectors["mean_distance_renorm"], rtol=1e-6)
    close(distances.mean(), vectors["uniform_distance"], rtol=1e-9)
    without_renorm = (attention[:, :, prefix:, prefix:].double() * distances).sum(-1).mean((0, 2))
    close(without_renorm, vectors["mean_distance_no_renorm"], rtol=1e-6)
    features = vectors.tensor("features")
    assert energy_rank(features) == vectors.scalar("rank99")
    assert feature_rank(features) == vectors.scalar("rank99_column_centered")
    assert energy_rank(features - features.mean(dim=1, keepdim=True)) == vectors.scalar("rank99_row_centered")
    cls, dist = vectors.tensor("cls_feat"), vectors.tensor("dist_feat")
    cosine = TwoHeads(cls, dist, cls_logits=cls, dist_logits=dist).cosine.mean()
    close(expert_diversity(float(cosine)), vectors["diversity"], atol=1e-6)
    vectors.assert_all_read()


def assert_paco_rows(vectors):
    """Rows of features: the queries, their keys, the queue."""
    features, logits = (vectors.tensor(f"paco_{name}").requires_grad_() for name in ("features", "sup_logits"))
    counts = vectors.tensor("counts").float()
    assert len(features) == 2 * len(logits) + vectors.scalar("paco_queue")
    loss = paco_loss(
        features,
        vectors.tensor("paco_labels"),
        logits=logits,
        prior=counts / counts.sum(),
        **{name: vectors.scalar(f"paco_{name}") for name in ("temperature", "alpha", "beta", "gamma")},
    )
    close(loss.detach(), vectors["paco_loss"], rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad(loss, (features, logits))
    close(found[0], vectors["paco_grad_features"], rtol=1e-5, atol=1e-5)
    close(found[1], vectors["paco_grad_sup"], rtol=1e-5, atol=1e-5)


@pytest.mark.golden("repeat_aug")
def test_micro_batches_share_repeated_samples_as_the_official_sampler_deals_them_to_processes(vectors):
    count = int(vectors.scalar("n"))
    for key, match in vectors.matching(r"w(\d+)_r(\d+)_e(\d+)"):
        world, rank, epoch = map(int, match.groups())
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).numpy()
        places = order_places(0, rank, micro_batches=world, size=count // 256 * 256 // world, repeats=3)
        assert np.array_equal(order[places], vectors[key])
    vectors.assert_all_read()
