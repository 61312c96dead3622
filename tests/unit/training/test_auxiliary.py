"""What an objective trains beside the model: moved by the optimizer, and in no artifact."""

import json

import pytest
import torch
from exact_methods import METHODS, Methods
from safetensors.torch import load_file
from small_models import made, vit

from vitops.config.objectives import Uskd
from vitops.config.training import Optimizer, Train
from vitops.losses import build
from vitops.models import build as build_model
from vitops.models import load
from vitops.training import Comm
from vitops.training.optimizer import build as build_optimizer
from vitops.training.stage import train_rank


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    methods = Methods(tmp_path_factory.mktemp("auxiliary"))
    job = methods.job("beside", "once")
    train_rank(job, Comm.single())
    return job.out


def test_the_artifact_holds_the_bare_student(trained):
    student = build_model(Train.model_validate(METHODS["beside"]).model, classes=3)
    for name in ("weights", "ema"):
        assert load_file(trained / f"{name}.safetensors").keys() == student.state_dict().keys()
    model, _ = load(trained)
    assert torch.isfinite(model(torch.zeros(1, 3, 16, 16))).all()


def test_the_history_tells_the_parts_of_the_loss(trained):
    for epoch in json.loads((trained / "history.json").read_text()):
        assert epoch["base"] + epoch["target"] + epoch["nontarget"] + epoch["weak"] == pytest.approx(epoch["loss"])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize(("decay_1d", "bias_decay"), [(False, 0.0), (True, 0.1)])
def test_the_optimizer_moves_it_with_the_decay_of_its_kind(name, decay_1d, bias_decay):
    model = made(vit)
    weak = build(Uskd(), model=model, teachers={}, counts=(3, 2, 2, 1)).auxiliary
    section = Optimizer(name=name, lr=0.1, weight_decay=0.1, decay_1d=decay_1d)
    optimizer = build_optimizer(section, model, weak)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay.keys() == {id(p) for p in (*model.parameters(), *weak.parameters())}
    assert decay[id(weak["weak"].weight)] == 0.1 and decay[id(weak["weak"].bias)] == bias_decay
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    alone = build_optimizer(section, model)
    assert len(alone.param_groups) == len(build_optimizer(section, model, torch.nn.ModuleDict()).param_groups)
