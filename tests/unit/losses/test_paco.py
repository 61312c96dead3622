"""PaCo's loss against what it must reduce to, and its copy and queue, which are state."""

import pytest
import torch
import torch.nn.functional as F
from small_models import cnn, made

from vitops.config.objectives import Paco
from vitops.losses import build
from vitops.losses.paco import paco_loss, second_view

COUNTS = (40, 12, 4, 1)
PRIOR = torch.tensor(COUNTS) / sum(COUNTS)
B, D = 3, 5
KNOBS = {"prior": PRIOR, "temperature": 0.2}


def rows(*, seed=0):
    draws = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(2 * B + 4, D, generator=draws), dim=1)
    labels = torch.tensor([0, 1, 1, 0, 1, 1, 3, 2, 1, 0])
    return features, labels, torch.randn(B, len(COUNTS), generator=draws)


def sample():
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return {"input": images, "target": torch.tensor([0, 1, 3, 1])}


def objective(**knobs):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build(Paco(queue=6, dim=8, **knobs), model=made(cnn), teachers={}, counts=COUNTS)


def test_without_features_it_is_cross_entropy_with_the_prior():
    features, labels, logits = rows()
    found = paco_loss(features, labels, logits=logits, alpha=0.0, gamma=0.0, **KNOBS)
    torch.testing.assert_close(found, F.cross_entropy(logits + PRIOR.log(), labels[:B]))


def test_one_row_by_hand():
    """One image of class 0, its key alone beside it: both are wanted, the key with half the weight of the centre."""
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    prior = torch.tensor([0.5, 0.5])
    found = paco_loss(features, torch.tensor([0, 0]), logits=torch.zeros(1, 2), prior=prior, temperature=1.0, alpha=0.5)
    log_total = (1.0 + torch.tensor(0.6).exp()).log()
    expected = -((prior[0].log() - log_total) + 0.5 * (0.6 - log_total)) / 1.5
    torch.testing.assert_close(found, expected)


def test_a_row_is_not_contrasted_with_itself():
    features, labels, logits = rows()
    alone = paco_loss(features[:1], labels[:1], logits=logits[:1], alpha=0.1, **KNOBS)
    torch.testing.assert_close(alone, F.cross_entropy(logits[:1] + PRIOR.log(), labels[:1]))
    beside = paco_loss(features[:2], labels[:2], logits=logits[:1], alpha=0.1, **KNOBS)
    assert not torch.allclose(alone, beside)


def test_the_second_view_is_drawn_from_the_generator_alone():
    images = sample()["input"]
    draw = [second_view(images, torch.Generator().manual_seed(seed), flip=0.5) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    assert draw[0].shape == images.shape and not torch.equal(draw[0], images)


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_the_second_view_is_mirrored_as_asked(mirrored):
    ramp = torch.arange(32.0).expand(20, 3, 32, 32).contiguous() / 32 + 5
    view = second_view(ramp, torch.Generator().manual_seed(1), flip=mirrored)
    rises = (view[..., 12:20, 12:20].diff(dim=-1) > 0).flatten(1).all(1)
    assert rises.tolist() == [not mirrored] * len(ramp)


def test_the_queue_holds_the_last_keys_of_all_micro_batches_in_order():
    paco = objective()
    before = paco.state_dict()["queue.keys"]
    told = [paco.loss(sample(), torch.Generator().manual_seed(m))[1] for m in range(2)]
    assert torch.equal(paco.state_dict()["queue.keys"], before), "a loss alone moves nothing"
    paco.merge(told)
    after = paco.state_dict()
    keys = torch.cat([entry["queue.keys"] for entry in told])
    assert torch.equal(after["queue.keys"], keys[-6:])
    assert after["queue.labels"].tolist() == [3, 1, 0, 1, 3, 1]
    assert "queue.keys" not in paco.summary()
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(8))


def test_the_copy_follows_slowly_and_has_no_gradient():
    paco = objective(momentum=0.75)
    loss, _ = paco.loss(sample(), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(value.grad is None for value in paco._encoder.parameters())
    assert any(value.grad is not None for value in paco.auxiliary.parameters())
    names = [name for name in paco.state_dict() if name.startswith("encoder.model.")]
    before = {name: paco.state_dict()[name].clone() for name in names}
    with torch.no_grad():
        for value in paco.model.parameters():
            value.add_(1.0)
    paco.after_step(torch.optim.SGD(paco.model.parameters(), lr=0.1))
    for name in names:
        torch.testing.assert_close(paco.state_dict()[name], before[name] + 0.25)


def test_keys_leave_the_statistics_of_the_model_alone():
    paco = objective()
    buffers = {name: value.clone() for name, value in paco.model.named_buffers()}
    paco._encode(sample()["input"])
    assert buffers and all(torch.equal(value, buffers[name]) for name, value in paco.model.named_buffers())
