"""How many workers a training may have, and which clusters it can use."""

import pytest

from vitops.config.pipelines import Resources
from vitops.errors import UsageError, VitopsError
from vitops.training.ray_cluster import connected, places_on, workers_for
from vitops.training.ray_worker import serve


@pytest.mark.parametrize(("there", "workers"), [(0, None), (1, 1), (2, 2), (3, 2), (5, 4), (7, 4), (8, 8), (20, 8)])
def test_a_training_has_the_largest_power_of_two_of_workers_that_there_is_room_for(there, workers):
    assert workers_for(Resources(workers=8), there) == workers


CUDA = Resources(workers=8, device="cuda")


@pytest.mark.parametrize(
    ("nodes", "resources", "there"),
    [
        ([], Resources(), 0),
        ([{"CPU": 0.5}, {"CPU": 0.5}], Resources(), 0),
        ([{"CPU": 1.5}, {"CPU": 2.0}, {}], Resources(), 3),
        ([{"CPU": 4.0}, {"GPU": 4.0}], CUDA, 0),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}], CUDA, 2),
    ],
)
def test_a_worker_needs_all_it_takes_on_one_node(nodes, resources, there):
    assert places_on(nodes, resources) == there


@pytest.mark.parametrize(("there", "workers"), [(1, None), (3, 2), (4, 4)])
def test_it_never_has_fewer_than_are_allowed(there, workers):
    assert workers_for(Resources(workers=4, min_workers=2), there) == workers


@pytest.mark.parametrize(("there", "workers"), [(3, None), (4, 4)])
def test_in_fast_mode_it_has_all_or_none(there, workers):
    assert workers_for(Resources(workers=4, mode="fast"), there) == workers


def test_an_address_for_clients_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match=r"RAY_ADDRESS=ray://head:10001: .* HOST:PORT"), connected(Resources()):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere"])
def test_an_address_where_no_cluster_answers_is_named_at_once(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(VitopsError, match=f"RAY_ADDRESS={address}: no Ray cluster"), connected(Resources()):
        pass


def test_a_node_without_the_groups_folder_says_so(tmp_path):
    with pytest.raises(VitopsError, match=f"does not see {tmp_path}: all nodes"):
        serve({"folder": str(tmp_path)})
