"""PaCo: supervised contrast with class centres, so that rare classes are not pushed away by frequent ones.

Source: Cui et al. (ICCV 2021), "Parametric Contrastive Learning"; what its text leaves open is as in its repository
(dvlab-research/PaCo). Trained with SAM it is the strongest flat teacher of DeiT-LT. One difference: the second view is
made from the first one's tensor (shift, flip, brightness, contrast, grey), for a stream gives each image once.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitops.config.objectives import Paco as Section
from vitops.losses.cross_entropy import tally
from vitops.losses.objective import Contributions, Objective
from vitops.models.heads import pooled

_KEYS, _LABELS = "queue.keys", "queue.labels"
_ENCODER = "encoder."


def paco_loss(
    features: Tensor,
    labels: Tensor,
    *,
    logits: Tensor,
    prior: Tensor,
    temperature: float,
    alpha: float,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """PaCo over the B rows of ``logits`` (B, C), a scalar, in float32.

    ``features`` (B + R, D) of unit length, with their ``labels`` (B + R,): the B queries first, then their keys and the
    queue. ``prior`` (C,) is added to the logits as a logarithm. Each row contrasts its query with its class centre
    (weight ``beta``) and with the features of its class (``alpha`` each), among all centres and, weighted by ``gamma``,
    all features but itself.
    """
    count, classes = logits.shape
    alike = features[:count].float() @ features.float().T / temperature  # (B, B + R)
    scores = torch.cat((logits.float() + (prior.to(logits) + 1e-9).log(), alike), dim=1)  # (B, C + B + R)
    others = 1 - torch.eye(*alike.shape, device=alike.device)
    same = (labels[:count, None] == labels).float() * others
    wanted = torch.cat((beta * F.one_hot(labels[:count], classes).float(), alpha * same), dim=1)
    counted = torch.cat((torch.ones_like(scores[:, :classes]), gamma * others), dim=1)
    scores = scores - scores.detach().amax(dim=1, keepdim=True)
    log_share = scores - ((scores.exp() * counted).sum(1, keepdim=True) + 1e-12).log()
    return -((wanted * log_share).sum(1) / wanted.sum(1)).mean()


def second_view(images: Tensor, rng: torch.Generator, *, flip: float) -> Tensor:
    """Another view of normalised ``images`` (B, 3, H, W), drawn from ``rng`` alone.

    Shifted by up to an eighth of the side, mirrored with the probability ``flip``, brighter or darker, with more or
    less contrast, and one in five grey.
    """
    count, _, height, width = images.shape
    draws = torch.rand(6, count, generator=rng)
    reach = (height // 8, width // 8)
    padded = F.pad(images, (reach[1], reach[1], reach[0], reach[0]))
    top, left = ((draw * (2 * most + 1)).long().tolist() for draw, most in zip(draws, reach, strict=False))
    view = torch.stack([padded[b, :, top[b] : top[b] + height, left[b] : left[b] + width] for b in range(count)])
    mirrored, bright, contrast, grey = (draw.to(images).view(-1, 1, 1, 1) for draw in draws[2:])
    view = torch.where(mirrored < flip, view.flip(3), view)
    mean = view.mean((1, 2, 3), keepdim=True)
    view = (view - mean) * (0.6 + 0.8 * contrast) + mean + (0.8 * bright - 0.4)
    return torch.where(grey < 0.2, view.mean(1, keepdim=True).expand_as(view), view)


class Paco(Objective):
    """Cross-entropy with a prior and contrast in one loss, against keys of a slowly moving copy and a queue of them.

    The projection is trained beside the model and is no part of it; copy and queue are state. Queue and copy move once
    a step, by the keys of all micro-batches in their order, so that they do not depend on the number of workers. The
    copy normalises by each micro-batch's own statistics. Contrast needs hard labels, so the stream never mixes.
    """

    config: Section

    def __init__(
        self, config: Section, *, model: nn.Module, teachers: Mapping[str, nn.Module], counts: Sequence[int]
    ) -> None:
        super().__init__(config, model=model, teachers=teachers, counts=counts)
        width = int(getattr(model, "head_hidden_size", None) or model.num_features)  # type: ignore[arg-type]
        projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.dim))
        self.auxiliary = nn.ModuleDict({"projection": projection})
        self._encoder = _frozen_copy(nn.ModuleDict({"model": model, "projection": projection}))
        self._keys = F.normalize(torch.randn(config.queue, config.dim), dim=1)
        self._labels = torch.randint(len(counts), (config.queue,))
        self._prior = torch.tensor(counts, dtype=torch.float32) / sum(counts)

    def mixes(self, epoch: int) -> bool:
        return False

    def loss(self, sample: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Contributions]:
        images, target, config = sample["input"], sample["target"], self.config
        features, logits = pooled(self.model, images)
        queries = F.normalize(self.auxiliary["projection"](features.float()), dim=1)
        keys = self._encode(second_view(images, rng, flip=config.flip))
        loss = paco_loss(
            torch.cat((queries, keys, self._keys.to(keys))),
            torch.cat((target, target, self._labels.to(target))),
            logits=logits,
            prior=self._prior,
            temperature=config.temperature,
            alpha=config.alpha,
            beta=config.beta,
            gamma=config.gamma,
        )
        return loss, tally(logits, sample, loss=loss) | {_KEYS: keys, _LABELS: target}

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        encoder = self._encoder.to(images.device)
        features, _ = pooled(encoder["model"], images)
        return F.normalize(encoder["projection"](features.float()), dim=1)

    def merge(self, contributions: list[Contributions]) -> None:
        keys = [entry[_KEYS].detach().cpu() for entry in contributions]
        labels = [entry[_LABELS].cpu() for entry in contributions]
        self._keys = torch.cat((self._keys.cpu(), *keys))[-self.config.queue :]
        self._labels = torch.cat((self._labels.cpu(), *labels))[-self.config.queue :]
        super().merge([{n: v for n, v in entry.items() if n not in {_KEYS, _LABELS}} for entry in contributions])

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        own = nn.ModuleDict({"model": self.model, "projection": self.auxiliary["projection"]})
        for slow, fast in zip(self._encoder.parameters(), own.parameters(), strict=True):
            slow.lerp_(fast.to(slow.device), 1 - self.config.momentum)

    def state_dict(self) -> dict[str, Tensor]:
        encoder = {_ENCODER + name: value.detach() for name, value in self._encoder.named_parameters()}
        return {**super().state_dict(), _KEYS: self._keys, _LABELS: self._labels, **encoder}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        own: dict[str, Any] = dict(state)
        self._keys, self._labels = own.pop(_KEYS), own.pop(_LABELS)
        with torch.no_grad():
            for name, value in self._encoder.named_parameters():
                value.copy_(own.pop(_ENCODER + name))
        super().load_state_dict(own)


def _frozen_copy(module: nn.ModuleDict) -> nn.ModuleDict:
    """A copy in training mode, whose BatchNorm layers keep no statistics: a micro-batch's own are all it uses."""
    found = copy.deepcopy(module).requires_grad_(False).train()
    for layer in found.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return found
