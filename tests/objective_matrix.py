"""Every objective of the configuration with every family of models: which pairs make sense, and one tiny training each.

The pairs are made from the configuration's own union, so that a new objective is in them as soon as it is there.
"""

import itertools
import json
from typing import get_args

import torch
from pydantic import ValidationError
from small_models import FAMILIES, cifar_resnet, made
from toy_training import Killed, digest, kill_in

from vitops.config.objectives import Distillation, Objective
from vitops.config.pipelines import Resources
from vitops.config.training import Train
from vitops.data.keyed import seeded
from vitops.data.loader import TrainStream, open_split
from vitops.losses import build
from vitops.training import Comm, fit

STEPS, KILLED_AFTER = 3, 4
"""Steps of an epoch; finished steps before the kill, in the middle of the second epoch."""
COUNTS = (40, 12, 4)
"""What the objectives are told of the classes: weights, margins and priors that are not all alike."""
CLASSES = len(COUNTS)
SECTIONS = {
    "vit": {"kind": "timm", "name": "deit_tiny_patch16_224"},
    "swin": {"kind": "timm", "name": "swin_tiny_patch4_window7_224"},
    "cnn": {"kind": "timm", "name": "test_resnet"},
    "deit": {"kind": "timm", "name": "deit_tiny_distilled_patch16_224"},
    "cosine": {"kind": "cifar_resnet", "depth": 8, "head": "cosine"},
}
MODELS = {**FAMILIES, "cosine": lambda classes: cifar_resnet(classes, head="cosine")}
RECIPE = {
    "epochs": 2,
    "micro_batches": 2,
    "micro_batch_size": 4,
    "preprocessing": {"size": 16},
    "augment": {"crop": {"kind": "pad", "padding": 2}},
    "mixup": {"label_smoothing": 0.0},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "clip_grad": 5.0,
}


def _section(kind):
    """The objective with whatever it can change at the second epoch changing there."""
    fields = kind.model_fields
    values = {"kind": fields["kind"].default}
    if "drw" in fields:
        values["drw"] = {"epoch": 1}
    if issubclass(kind, Distillation):
        values["weight"] = {"kind": "cosine", "start": 0.5, "end": 1.0, "epochs": 1}
    return values


KINDS = {kind.model_fields["kind"].default: _section(kind) for kind in get_args(get_args(Objective)[0])}


def configured(kind, family, *, changes=None, **recipe):
    """The training stage of a pair, with ``changes`` of its objective. Raises ValidationError if it makes no sense."""
    objective = {**KINDS[kind], **(changes or {})}
    return Train.model_validate({**RECIPE, **recipe, "objective": objective, "model": SECTIONS[family]})


def _makes_sense(kind, family):
    try:
        configured(kind, family)
    except ValidationError:
        return False
    return True


PAIRS = list(itertools.product(KINDS, SECTIONS))
TRAINED = [pair for pair in PAIRS if _makes_sense(*pair)]


def train(split, folder, config, family, *, comm, mode, kill_after=None):
    """(digest of all that came out, where it was resumed); Killed after so many steps."""
    with seeded(5, "matrix"):
        model, guide = MODELS[family](CLASSES), made(lambda: cifar_resnet(CLASSES))
        objective = build(config.objective, model=model, teachers={"teacher": guide}, counts=COUNTS)
    if kill_after is not None:
        kill_in(objective, kill_after)
    result = fit(
        model,
        objective,
        TrainStream(open_split(split), config, 7),
        config,
        seed=7,
        comm=comm,
        checkpoints=folder,
        resources=Resources(launcher="local", mode=mode, checkpoint_steps=2, checkpoint_seconds=1e9),
        report=lambda **_: None,
    )
    return digest(model, objective, result), result.resumed_from


def whole_and_resumed(split, folder, config, family, *, comm, mode, kill_after=KILLED_AFTER):
    """Digests of an undisturbed training and of one that was killed and went on, and the step it went on from."""
    whole, _ = train(split, folder / "whole", config, family, comm=comm, mode=mode)
    try:
        train(split, folder / "killed", config, family, comm=comm, mode=mode, kill_after=kill_after)
    except Killed:
        resumed, place = train(split, folder / "killed", config, family, comm=comm, mode=mode)
        return whole, resumed, place and place.epoch * STEPS + place.step
    return whole, "was not killed", None


def rank_main(rank, world, split, root):
    """Entry of one spawned process: all pairs in one process group; writes ``root/<rank>.json``."""
    torch.set_num_threads(1)
    meeting = f"file://{root / 'meeting'}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    comm, answers = Comm.distributed(), {}
    for kind, family in TRAINED:
        name = f"{kind}-{family}"
        answers[name] = whole_and_resumed(split, root / name, configured(kind, family), family, comm=comm, mode="fast")
    (root / f"{rank}.json").write_text(json.dumps(answers))
    torch.distributed.destroy_process_group()
