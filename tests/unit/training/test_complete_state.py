"""A checkpoint is complete: whatever a training can reach is in it, or is derivable for a reason that is stated here.

The list is made, not kept: every tensor, array and generator that keeper, training, objective, model, optimizer and
stream reach. Saved means: overwritten with something else, it has its value again after a resume.
"""

import copy
import random
import re
import sys
from collections import deque

import numpy as np
import pytest
import torch
from exact_methods import METHODS, STEPS
from reachable import globals_of, reachable
from synthetic_split import write_split
from toy_training import FULL, ToyNet, ToyObjective, digest

from vitops.compression.pruning.dense import as_pruned_vit
from vitops.compression.pruning.pruner import Pruner
from vitops.compression.pruning.stage import pruning_recipe
from vitops.config.compression import Prune
from vitops.config.models import CifarResNet
from vitops.config.pipelines import Resources
from vitops.config.training import Recipe, Train
from vitops.data.keyed import seeded
from vitops.data.loader import TrainStream, open_split
from vitops.errors import Interrupted
from vitops.losses.registry import build as build_objective
from vitops.models import build as build_model
from vitops.training import Comm
from vitops.training.keeper import Keeper
from vitops.training.loop import FitResult
from vitops.training.running import Training

CONFIGURED = {
    r"teachers\[|_teacher\.module|_dense\.": "frozen models: inputs of the stage",
    r"_deferred\._weights$|\._weights$": "class weights: a function of the class counts and the epoch's number",
    r"^average\._sr_generator$": "timm's stochastic rounding of low-precision averages: float32 draws nothing from it",
    r"^stream\._reader\.(_tables|_maps|_cache)": "columns, bytes and decoded images of the split",
}
"""Path -> why a fresh training of the same configuration has the same values (checked below)."""
TRANSIENT = {
    r"\._gradient\._sum\.": "the last step's sums: the next step writes every piece of them before it reads it",
    r"^(model|auxiliary)\..*\.grad$": "the last step's gradients: the next step clears them before it makes its own",
}
"""Path -> why its values may be lost (checked below: without them the training goes on to the same bits)."""
MIDDLE, END = STEPS + 3, 2 * STEPS


class Running:
    """A training that is taken through its steps by hand, with a keeper that saves when it is told to."""

    def __init__(self, parts, folder):
        model, objective, stream, recipe = parts
        resources = Resources(launcher="local", checkpoint_seconds=1e9, checkpoint_steps=END)
        self.training = Training(model, objective, stream, recipe, seed=7, comm=Comm.single(), resources=resources)
        self.keeper = Keeper(
            self.training,
            {},
            folder=folder,
            resources=resources,
            report=lambda **_: None,
            stopping=lambda: True,
            allow_environment_change=False,
        )

    def steps(self, first, last):
        """Steps ``first`` .. ``last`` - 1 of the whole training."""
        for epoch, step in (divmod(number, STEPS) for number in range(first, last)):
            if not step:
                self.training.objective.on_epoch(epoch)
            self.training.step(epoch, step)
            if step == STEPS - 1:
                self.training.close_epoch(epoch)

    def save(self, steps):
        """A checkpoint after so many steps."""
        with pytest.raises(Interrupted, match="the work is saved"):
            self.keeper.after_step(*divmod(steps - 1, STEPS))

    def state(self):
        """All that can hold state, by path."""
        training = self.training
        names = ("model", "average", "optimizer", "objective", "stream")
        roots = {"auxiliary": training.objective.auxiliary, **{name: getattr(training, name) for name in names}}
        return reachable({**roots, "keeper": self.keeper})

    def digest(self):
        """Of everything that comes out."""
        training = self.training
        average = training.average.module.state_dict() if training.average else None
        return digest(training.model, training.objective, FitResult(training.history, None, None, average, None))


def toy(split, objective=ToyObjective):
    recipe = Recipe(**FULL)
    with seeded(5, "toy"):
        model = ToyNet()
    return model, objective(model), TrainStream(split, recipe, 7), recipe


def student(split):
    config = Train.model_validate(METHODS["student"])
    with seeded(5, "student"):
        model = build_model(config.model, classes=3)
    objective = build_objective(config.objective, model=model, teachers=teachers(), counts=split.train_counts)
    return model, objective, TrainStream(split, config, 7), config


def pruning(split, config=METHODS["pruning"]):
    config = Prune.model_validate(config)
    with seeded(5, "pruning"):
        dense = as_pruned_vit(build_model(Train.model_validate(METHODS["student"]).model, classes=3), config.dropout)
    model, roles = copy.deepcopy(dense), {**teachers(), "dense": dense}
    with seeded(5, "objective"):
        inner = build_objective(config.finetune.objective, model=model, teachers=roles, counts=split.train_counts)
    recipe = pruning_recipe(config, epochs=END // STEPS)
    return model, Pruner(config, inner, model=model), TrainStream(split, recipe, 7), recipe


def pruning_beside(split):
    guide = {**METHODS["pruning"]["finetune"], "objective": {"kind": "uskd"}, "mixup": None}
    return pruning(split, {**METHODS["pruning"], "finetune": guide})


def beside(split):
    config = Train.model_validate(METHODS["beside"])
    with seeded(5, "beside"):
        model = build_model(config.model, classes=3)
        objective = build_objective(config.objective, model=model, teachers={}, counts=split.train_counts)
    return model, objective, TrainStream(split, config, 7), config


def teachers():
    with seeded(5, "teacher"):
        return {"teacher": build_model(CifarResNet(depth=8), classes=3).eval().requires_grad_(False)}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("complete"), train=8 * STEPS)


@pytest.mark.parametrize("method", [toy, student, pruning, beside, pruning_beside])
def test_all_that_a_training_reaches_is_saved_or_derivable(method, split, tmp_path):
    running, fresh, whole = (Running(method(open_split(split)), tmp_path / n) for n in ("running", "fresh", "whole"))
    whole.steps(0, END)
    running.steps(0, MIDDLE)
    running.save(MIDDLE)
    assert unexplained(running) == []
    assert differing(running, fresh) == []
    scramble_generators()
    running.steps(MIDDLE, END)
    assert running.digest() == whole.digest(), "what the tables call derivable was missed"


def test_the_tables_name_nothing_that_no_training_has(split, tmp_path):
    paths: set[str] = set()
    for method in (toy, student, pruning, beside):
        running = Running(method(open_split(split)), tmp_path / method.__name__)
        running.steps(0, 1)
        paths |= running.state().keys()
    stale = [pattern for pattern in (*CONFIGURED, *TRANSIENT) if not any(re.search(pattern, path) for path in paths)]
    assert stale == []


class Forgetful(ToyObjective):
    """Keeps a running tensor and a generator to itself."""

    def __init__(self, model):
        super().__init__(model)
        self.average = torch.zeros(3)
        self.dice = torch.Generator()

    def merge(self, contributions):
        super().merge(contributions)
        self.average.lerp_(contributions[0]["mean"], 0.5)


def test_an_unsaved_tensor_and_generator_of_an_objective_are_noticed(split, tmp_path):
    running = Running(toy(open_split(split), Forgetful), tmp_path)
    running.steps(0, MIDDLE)
    running.save(MIDDLE)
    assert unexplained(running) == ["objective.average", "objective.dice"]


class Slotted:
    __slots__ = ("held",)


class Recent(Forgetful):
    """Keeps the last contributions in a queue."""

    def merge(self, contributions):
        super().merge(contributions)
        self.recent = deque([{"mean": contributions[0]["mean"].clone()}])


class Hidden(Forgetful):
    """Keeps them in a slot."""

    def merge(self, contributions):
        super().merge(contributions)
        self.slotted = Slotted()
        self.slotted.held = {"mean": contributions[0]["mean"].clone()}


class Attached(Forgetful):
    """Keeps them as an attribute of a parameter."""

    def merge(self, contributions):
        super().merge(contributions)
        next(self.model.parameters()).running = contributions[0]["mean"].clone()


@pytest.mark.parametrize("objective", [Recent, Hidden, Attached])
def test_a_tensor_is_noticed_wherever_it_is_kept(objective, split, tmp_path):
    running = Running(toy(open_split(split), objective), tmp_path)
    running.steps(0, MIDDLE)
    running.save(MIDDLE)
    assert len(unexplained(running)) == 3, "beside the average and the generator"


def test_no_module_keeps_a_tensor_or_a_generator():
    assert globals_of("vitops", sys.modules) == {}


def unexplained(running):
    """Paths that a resume does not bring back and that no table explains. Spoils what is transient."""
    before = {path: value for path, value in running.state().items() if not listed(path, CONFIGURED)}
    kept = {path: bits(value) for path, value in before.items()}
    for value in before.values():
        spoil(value)
    running.keeper.resume()
    after = {path: bits(value) for path, value in running.state().items() if path in kept}
    lost = [path for path, value in kept.items() if after.get(path) != value]
    return sorted(path for path in lost if not listed(path, TRANSIENT))


def differing(running, fresh):
    """Configured paths whose values are not those of a training that has only been built and has read its data."""
    training = fresh.training
    training.objective.on_epoch(MIDDLE // STEPS)
    for number in range(MIDDLE):
        for m in range(training.recipe.micro_batches):
            training.stream.micro_batch(*divmod(number, STEPS), m, mix=True)
    expected = fresh.state()
    found = {path: value for path, value in running.state().items() if listed(path, CONFIGURED)}
    return sorted(path for path in found if path not in expected or bits(found[path]) != bits(expected[path]))


def listed(path, table):
    return any(re.search(pattern, path) for pattern in table)


def bits(value):
    """The content of a tensor, array or generator as something to compare."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.shape, repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
    return repr(value.getstate() if isinstance(value, random.Random) else value)


def spoil(value):
    """Give it another content in place."""
    if isinstance(value, torch.Tensor):
        wrong = value.logical_not() if value.dtype == torch.bool else value.detach() + 3
        value.detach().copy_(wrong)
    elif isinstance(value, np.ndarray):
        value += 3
    elif isinstance(value, torch.Generator):
        value.manual_seed(99)
    else:
        pytest.fail(f"teach this test to spoil a {type(value).__name__}")


def scramble_generators():
    """The process's own generators: every use is seeded by (seed, epoch, step, micro-batch) in vitops.data.keyed."""
    torch.manual_seed(99)
    np.random.seed(99)
    random.seed(99)
