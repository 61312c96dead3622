"""The same bits for every number of workers, every kill and every resume."""

import multiprocessing
import random
import time

import numpy as np
import pytest
import torch
from synthetic_split import write_split
from toy_training import Killed, ToyObjective, rank_main, train

from vitops.errors import Interrupted, VitopsError
from vitops.store import host
from vitops.store.job import Position
from vitops.training import environment, keeper
from vitops.training.checkpoint import Checkpoints

INTERVALS = {
    "seconds": {"checkpoint_steps": None, "checkpoint_seconds": 1e-6},
    "steps": {"checkpoint_steps": 1},
    "never": {"checkpoint_steps": None},
}
"""Under which two workers are killed in the step after the fifth."""


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def undisturbed(split, tmp_path_factory):
    return train(split, tmp_path_factory.mktemp("undisturbed"))[0]


@pytest.fixture(scope="module")
def spawned(split, tmp_path_factory):
    """Answers of the jobs in four processes that are started once: job -> rank -> (digest, resumed from)."""
    root = tmp_path_factory.mktemp("spawned")
    with pytest.raises(Killed):
        train(split, root / "killed", kill_after=5)
    jobs = {
        "four": (4, root / "c4", {}),
        "two": (2, root / "c2", {}),
        "resumed": (2, root / "killed", {}),
        "fast": (4, root / "cf", {"mode": "fast"}),
        "fast-two": (2, root / "cf2", {"mode": "fast"}),
        "fast-killed": (2, root / "cf2-killed", {"mode": "fast", "kill_after": 5}),
        "fast-resumed": (2, root / "cf2-killed", {"mode": "fast"}),
        "apart": (2, root / "ca", {"apart": True}),
        "apart, allowed": (2, root / "caa", {"apart": True, "allow_environment_change": True}),
    }
    for name, interval in INTERVALS.items():
        jobs |= {f"killed, {name}": (2, root / f"c {name}", {"kill_after": 5, **interval})}
        jobs |= {name: (2, root / f"c {name}", {})}
    for name in jobs:
        (root / name).mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=rank_main, args=(rank, split, root, jobs)) for rank in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return {
        name: [(root / name / f"{rank}.txt").read_text().split(" ", 1) for rank in range(world)]
        for name, (world, _, _) in jobs.items()
    }


def test_two_runs_agree(split, undisturbed, tmp_path):
    assert train(split, tmp_path)[0] == undisturbed


@pytest.mark.parametrize("job", ["two", "four"])
def test_bits_do_not_depend_on_the_number_of_workers(job, spawned, undisturbed):
    assert {digest for digest, _ in spawned[job]} == {undisturbed}


def test_workers_that_compute_otherwise_than_the_first_are_refused_everywhere(spawned):
    refused = {(word, told.partition("(")[2].partition(")")[0]) for word, told in spawned["apart"]}
    assert refused == {("refused", "overrides.MKL_CBWR: None -> COMPATIBLE")}


def test_workers_that_were_allowed_to_compute_otherwise_are_told_of(spawned):
    for _, changes in spawned["apart, allowed"]:
        assert "{'overrides.MKL_CBWR': [None, 'COMPATIBLE']}" in changes


def test_every_micro_batch_draws_its_own_and_both_passes_of_a_step_the_same(split, tmp_path, monkeypatch):
    drawn, loss = [], ToyObjective.loss

    def noting(self, sample, rng):
        foreign = np.random.get_state()[1].tobytes(), random.getstate()
        drawn.append((rng.initial_seed(), torch.initial_seed(), *foreign))
        return loss(self, sample, rng)

    monkeypatch.setattr(ToyObjective, "loss", noting)
    train(split, tmp_path)
    steps = [drawn[start : start + 8] for start in range(0, len(drawn), 8)]
    assert len(steps) == 9
    assert all(step[:4] == step[4:] for step in steps), "SAM's second pass repeats the first"
    for source in zip(*drawn, strict=True):
        assert len(set(source)) == 9 * 4, "epoch, step and micro-batch all count"


def test_a_resume_with_other_workers_gives_the_same_bits(spawned, undisturbed):
    assert {digest for digest, _ in spawned["resumed"]} == {undisturbed}
    assert {resumed for _, resumed in spawned["resumed"]} <= {"epoch=1 step=1", "epoch=1 step=2"}


@pytest.mark.parametrize("interval", ["seconds", "steps"])
def test_two_workers_that_are_killed_lose_at_most_the_interval(interval, spawned, undisturbed):
    assert {digest for digest, _ in spawned[f"killed, {interval}"]} == {"killed"}
    assert {digest for digest, _ in spawned[interval]} == {undisturbed}
    assert {resumed for _, resumed in spawned[interval]} <= {"epoch=1 step=1", "epoch=1 step=2"}


def test_nothing_is_saved_before_an_interval_has_passed(spawned):
    assert {resumed for _, resumed in spawned["never"]} == {"None"}


def test_fast_mode_keeps_the_ranks_equal(spawned):
    assert len({digest for digest, _ in spawned["fast"]}) == 1


def test_fast_mode_resumes_to_its_own_bits_with_the_same_workers(spawned):
    assert {digest for digest, _ in spawned["fast-killed"]} == {"killed"}
    assert {digest for digest, _ in spawned["fast-resumed"]} == {digest for digest, _ in spawned["fast-two"]}
    assert {resumed for _, resumed in spawned["fast-resumed"]} <= {"epoch=1 step=1", "epoch=1 step=2"}


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_kill_and_resume_gives_the_same_bits_and_says_what_was_lost(steps, split, undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "_REPORT_SECONDS", 0.0)
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=steps)
    digest, result, _ = train(split, tmp_path)
    assert digest == undisturbed
    done = 3 * result.resumed_from.epoch + result.resumed_from.step
    assert steps - 2 < done <= steps, "a kill costs at most the interval of 2 steps"
    assert (result.work_lost.steps, result.work_lost.seconds > 0) == (steps - done, steps > done)


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_where_the_disk_is_slower_than_the_training_a_kill_still_costs_one_interval(
    interval, split, tmp_path, monkeypatch
):
    save = Checkpoints.save

    def slow(self, position, saved):
        time.sleep(0.3)
        save(self, position, saved)

    monkeypatch.setattr(Checkpoints, "save", slow)
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=7, checkpoint_steps=interval)
    _, result, _ = train(split, tmp_path)
    lost = 7 - (3 * result.resumed_from.epoch + result.resumed_from.step)
    assert lost + 1 <= interval, "finished steps, and the one that was cut off"


def test_killed_after_every_step(split, undisturbed, tmp_path):
    for _ in range(8):
        with pytest.raises(Killed):
            train(split, tmp_path, kill_after=1, checkpoint_steps=1)
    digest, result, _ = train(split, tmp_path, checkpoint_steps=1)
    assert (digest, result.resumed_from) == (undisturbed, Position(epoch=2, step=2))


def test_a_finished_training_resumes_to_its_result(split, undisturbed, tmp_path):
    train(split, tmp_path)
    digest, result, _ = train(split, tmp_path)
    assert (digest, result.resumed_from) == (undisturbed, Position(epoch=2, step=3))


def test_stop_saves_the_work_and_resumes(split, undisturbed, tmp_path):
    with pytest.raises(Interrupted, match="epoch 0 after step 1"):
        train(split, tmp_path, stopping=lambda: True, checkpoint_steps=None)
    digest, result, _ = train(split, tmp_path)
    assert (digest, result.resumed_from) == (undisturbed, Position(epoch=0, step=1))


@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_previous(name, damage, split, undisturbed, tmp_path, caplog):
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=5, checkpoint_steps=1)
    newest = max(tmp_path.glob("e*"))
    harm(newest / name, damage)
    digest, result, _ = train(split, tmp_path)
    assert (digest, result.resumed_from) == (undisturbed, Position(epoch=1, step=1))
    assert f"checkpoint {newest} is damaged" in caplog.text


def harm(path, damage):
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage == "gone":
        return
    data[len(data) // 2] ^= 1
    path.write_bytes(data if damage == "flip" else data[: len(data) // 2])


def test_all_checkpoints_damaged_starts_over(split, undisturbed, tmp_path):
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=5)
    for folder in tmp_path.glob("e*"):
        harm(folder / "state.safetensors", "cut")
    digest, result, _ = train(split, tmp_path)
    assert (digest, result.resumed_from) == (undisturbed, None)
    assert result.work_lost.steps == 3, "what is noted at the end of an epoch"


def test_two_checkpoints_are_kept(split, tmp_path):
    train(split, tmp_path, checkpoint_steps=1)
    assert [path.name for path in sorted(tmp_path.glob("e*"))] == [
        "e000002-s000000002-a000001",
        "e000002-s000000003-a000001",
    ]


def test_checkpoints_of_another_recipe_are_refused(split, tmp_path):
    train(split, tmp_path)
    with pytest.raises(VitopsError, match=r"recipe\.epochs: 3 -> 4"):
        train(split, tmp_path, recipe={"epochs": 4})


ARITHMETIC = {
    "overrides.MKL_CBWR": lambda patch: patch.setenv("MKL_CBWR", "COMPATIBLE"),
    "torch_source": lambda patch: patch.setattr(torch.version, "git_version", "another"),
    "cpu_capability": lambda patch: patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another"),
    "mkldnn": lambda patch: patch.setattr(torch.backends.mkldnn, "is_available", lambda: False),
    "matmul_precision": lambda patch: patch.setattr(torch, "get_float32_matmul_precision", lambda: "medium"),
    "processor": lambda patch: patch.setattr(host, "_processor", lambda: {"model": "another"}),
}


@pytest.mark.parametrize("fact", ARITHMETIC)
def test_checkpoints_of_another_arithmetic_are_refused(fact, split, tmp_path, monkeypatch):
    train(split, tmp_path)
    ARITHMETIC[fact](monkeypatch)
    with pytest.raises(VitopsError, match=rf"arithmetic differs \(.*{fact}: .* -> ".replace(".M", r"\.M")):
        train(split, tmp_path)


def test_checkpoints_of_another_number_of_threads_are_refused(split, tmp_path):
    train(split, tmp_path)
    with pytest.raises(VitopsError, match=r"arithmetic differs \(threads: 1 -> 2\)"):
        train(split, tmp_path, threads=2)


def test_an_allowed_change_of_arithmetic_is_marked_in_every_later_resume(split, tmp_path, monkeypatch):
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=5, checkpoint_steps=1)
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=2, checkpoint_steps=1, allow_environment_change=True)
    _, result, _ = train(split, tmp_path)
    (change,) = result.environment_changes
    assert change["changes"] == {"overrides.MKL_CBWR": [None, "COMPATIBLE"]}
    assert (change["position"]["epoch"], result.resumed_from.epoch) == (1, 2)


def test_another_arithmetic_in_fast_mode_is_a_warning_and_marked(split, tmp_path, monkeypatch, caplog):
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=5, mode="fast")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    _, result, _ = train(split, tmp_path, mode="fast")
    assert "overrides.MKL_CBWR: None -> COMPATIBLE" in caplog.text
    assert [change["changes"] for change in result.environment_changes] == [
        {"overrides.MKL_CBWR": [None, "COMPATIBLE"]}
    ]


def test_an_allowance_that_was_not_needed_marks_nothing(split, undisturbed, tmp_path):
    with pytest.raises(Killed):
        train(split, tmp_path, kill_after=5)
    digest, result, _ = train(split, tmp_path, allow_environment_change=True)
    assert (digest, result.environment_changes) == (undisturbed, [])


def test_an_objective_that_is_done_ends_the_training_and_stays_done(split, tmp_path):
    digest, result, _ = train(split, tmp_path, stop_after=4)
    assert [entry["epoch"] for entry in result.history] == [0, 1]
    again, resumed, _ = train(split, tmp_path, stop_after=4)
    assert (again, resumed.resumed_from) == (digest, Position(epoch=1, step=1))


def test_the_recipe_changes_the_bits(split, undisturbed, tmp_path):
    """What the other tests compare is sensitive to each of these."""
    for number, change in enumerate(
        [{"sam": None}, {"mixup": None}, {"ema": None}, {"clip_grad": 0.01}, {"repeats": 2}]
    ):
        assert train(split, tmp_path / str(number), recipe=change)[0] != undisturbed


def test_sam_with_rho_zero_gives_the_bits_of_the_base_optimizer(split, tmp_path):
    base = train(split, tmp_path / "base", recipe={"sam": None})[0]
    assert train(split, tmp_path / "zero", recipe={"sam": {"rho": 0.0}})[0] == base


def test_a_loss_that_is_not_finite_stops_with_the_place(split, tmp_path):
    with pytest.raises(VitopsError, match=r"the loss became (nan|inf) in epoch \d, step \d \("):
        train(split, tmp_path, recipe={"optimizer": {"name": "sgd", "lr": 1e30}, "clip_grad": None})


def test_with_fresh_memory_filled_a_model_that_reads_it_is_noticed(split, tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr(environment, "FILL_FRESH_MEMORY", True)
    assert train(split, tmp_path / "sound")[0] == undisturbed
    loss = ToyObjective.loss

    def careless(self, sample, rng):
        value, told = loss(self, sample, rng)
        return value + torch.empty_like(value), told

    monkeypatch.setattr(ToyObjective, "loss", careless)
    with pytest.raises(VitopsError, match="the loss became nan"):
        train(split, tmp_path / "careless")


def test_training_leaves_the_settings_of_the_process_alone(split, tmp_path):
    before = settings()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(split, tmp_path)
    assert torch.equal(torch.rand(2), expected)
    assert settings() == before


def settings():
    filling = torch.utils.deterministic.fill_uninitialized_memory
    return torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), filling
