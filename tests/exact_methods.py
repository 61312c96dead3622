"""Every kind of training stage, tiny, with all that is random on: run by W processes, killed, run again by others."""

import hashlib
import json
import multiprocessing
import os
import signal
import time

import psutil
import torch
from synthetic_split import write_split

from vitops.compression.pruning.stage import prune_rank
from vitops.errors import Interrupted
from vitops.store.job import Job, Position
from vitops.training import Comm, environment
from vitops.training.running import Training
from vitops.training.stage import train_rank

STEPS = 6
"""Of one epoch."""
NOISE = {"drop_rate": 0.1, "drop_path_rate": 0.2}
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}
RECIPE = {
    "epochs": 2,
    "micro_batches": 4,
    "micro_batch_size": 2,
    "preprocessing": {"size": 16},
    "augment": {"crop": {"kind": "pad", "padding": 2}, "randaugment": "rand-m5-mstd0.5", "erasing": 0.5},
    "mixup": {},
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "schedule": {"kind": "cosine", "warmup_epochs": 1},
}
GUIDE = {
    **RECIPE,
    "model": {"kind": "cifar_resnet", "depth": 8},
    "objective": {"kind": "cross_entropy"},
    "epochs": 4,
    "augment": {},
    "mixup": None,
    "optimizer": {"name": "sgd", "lr": 0.05},
}
"""A teacher good enough to be accepted as one."""
PLAIN = {
    **RECIPE,
    "model": {"kind": "timm", "name": "deit_tiny_patch16_224", "args": {**VIT, **NOISE, "attn_drop_rate": 0.1}},
    "objective": {"kind": "cross_entropy"},
    "clip_grad": 1.0,
    "ema": 0.9,
}
TEACHER = {
    **RECIPE,
    "model": {"kind": "timm", "name": "test_resnet", "args": NOISE},
    "objective": {"kind": "cross_entropy", "drw": {"epoch": 1}},
    "optimizer": {"name": "sgd", "lr": 0.05, "weight_decay": 2e-4},
    "sam": {"rho": 0.05},
}
STUDENT = {
    **RECIPE,
    "model": {"kind": "timm", "name": "deit_tiny_distilled_patch16_224", "args": {**VIT, **NOISE}},
    "objective": {"kind": "deit_lt", "drw": {"epoch": 1}},
    "clip_grad": 1.0,
}
PRUNING = {
    "target": 0.6,
    "min_dims": {"emb": 8, "h": 1, "qk": 2, "v": 2, "mlp": 8},
    "group_sizes": {"emb": 4, "h": 1, "qk": 2, "v": 2, "mlp": 8},
    "groups_per_round": 4,
    "interval": 4,
    "dropout": {"drop_path": 0.2, "attn_drop": 0.1, "proj_drop": 0.1, "pos_drop": 0.1, "head_drop": 0.1},
    "finetune": {
        **RECIPE,
        "objective": {"kind": "nvit", "distill": {"kind": "deit_lt"}},
        "epochs": 1,
        "schedule": {"kind": "cosine"},
        "ema": 0.9,
    },
}
PRUNING_STEPS = 24
"""Until the target; then one epoch of fine-tuning."""
BESIDE = {
    **PLAIN,
    "objective": {"kind": "uskd", "mu": 1.0},
    "mixup": {"label_smoothing": 0.0},
    "sam": {"rho": 0.05},
}
"""Parameters of the objective's own, trained beside the model's."""
PACO = {**TEACHER, "objective": {"kind": "paco", "queue": 12, "momentum": 0.5}, "mixup": None}
"""A copy of the model and a queue as state; contrast needs hard labels, so nothing is mixed."""
METHODS = {
    "plain": PLAIN,
    "teacher": TEACHER,
    "student": STUDENT,
    "pruning": PRUNING,
    "beside": BESIDE,
    "paco": PACO,
}
KILLED = -signal.SIGKILL
_PATIENCE = 300.0
"""Seconds after which a job of a second or two is taken for hung."""


class Methods:
    """The split and the models that the methods start from, and every method's job in a folder of its own."""

    def __init__(self, root):
        self.root, self.split = root, write_split(root, train=8 * STEPS, val=6)
        self.inputs = {method: {} for method in METHODS}
        self.inputs["student"]["teacher"] = self._made("guide", GUIDE)
        student = self._made("dense", STUDENT, teacher=self.inputs["student"]["teacher"])
        self.inputs["pruning"] = {**self.inputs["student"], "model": student}

    def job(self, method, name, **resources):
        """A job in ``root/<method>/<name>``."""
        return self._job(self.root / method / name, METHODS[method], self.inputs[method], resources)

    def _made(self, name, config, **inputs):
        job = self._job(self.root / name, config, inputs, {})
        train_rank(job, Comm.single())
        return job.out

    def _job(self, folder, config, inputs, resources):
        (folder / "out").mkdir(parents=True, exist_ok=True)
        return Job(
            stage="stage",
            key="0" * 64,
            parameters={"config": config, "seed": 3},
            inputs={"split": self.split, **inputs},
            out=folder / "out",
            checkpoints=folder / "checkpoints",
            resources={"launcher": "local", "checkpoint_steps": 2, "checkpoint_seconds": 1e9, **resources},
        )


class Ranks:
    """``world`` processes, forked from a warm one, that run a job; ``at`` (steps done, signal) befalls each of them."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(["exact_methods"])

    def __init__(self, method, job, *, world, at=None):
        self._folder = job.out.parent
        number = len(list(self._folder.glob("meeting-*")))
        meeting = self._folder / f"meeting-{number}-{world}"
        meeting.mkdir()
        self._processes = [
            self._context.Process(target=_rank, args=(rank, world, meeting, method, job, at)) for rank in range(world)
        ]
        for process in self._processes:
            process.start()
        self._meeting = meeting

    def wait(self):
        """The exit codes by rank; whoever is not done in time is killed."""
        for process in self._processes:
            process.join(_PATIENCE)
            process.kill()
        return [process.exitcode for process in self._processes]

    def stopped(self):
        """The processes, once each of them has sent itself SIGSTOP."""
        found = [psutil.Process(process.pid) for process in self._processes]
        deadline = time.monotonic() + _PATIENCE
        while any(process.status() != psutil.STATUS_STOPPED for process in found):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    def answer(self):
        """What rank 0 came back with: a position or None, or the sentence it was stopped with."""
        return json.loads((self._meeting / "answer.json").read_text())


def position(answer):
    """The position in an answer of ``Ranks``."""
    return Position(**answer["resumed_from"]) if answer["resumed_from"] else None


def digests(job):
    """SHA-256 of every file that the stage wrote."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(job.out.iterdir())}


def _rank(rank, world, meeting, method, job, at):
    torch.set_num_threads(1)
    environment.FILL_FRESH_MEMORY = True
    _check_each_step_has_fresh_memory_filled()
    if at is not None:
        _befall(*at)
    comm = Comm.single()
    if world > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting / 'point'}", rank=rank, world_size=world
        )
        comm = Comm.distributed()
    try:
        outcome = (prune_rank if method == "pruning" else train_rank)(job, comm)
        answer = outcome.model_dump(mode="json", include={"resumed_from"})
    except Interrupted as error:
        answer = {"interrupted": str(error)}
    if rank == 0:
        (meeting / "answer.json").write_text(json.dumps(answer))


def _check_each_step_has_fresh_memory_filled():
    step = Training.step

    def checked(self, epoch, number):
        assert torch.empty(3).isnan().all(), "a method that reads what nobody wrote would not be noticed"
        step(self, epoch, number)

    Training.step = checked


def _befall(steps, number):
    """Send this process a signal in the middle of the step that follows ``steps`` finished ones."""
    backward, count = Training._backward, 0

    def counted(self, epoch, step):
        nonlocal count
        found = backward(self, epoch, step)
        count += 1
        if count == steps + 1:
            os.kill(os.getpid(), number)
        return found

    Training._backward = counted
