"""Sessions as tasks of a Ray cluster: on the node with the resource, and one clear error for what goes wrong."""

from __future__ import annotations

from importlib.util import find_spec
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace

import pytest

from limbeck.core.measurement import machine
from limbeck.core.step import RunContext
from limbeck.core.target import Target
from limbeck.errors import InputError, ServiceError
from limbeck.measure.latency import Latency
from limbeck.measure.service.client import Service
from limbeck.measure.service.options import ServiceOptions
from limbeck.measure.service.ray_connection import RayConnection

FACTS = {"limits": {"seconds": 60}}


class RayError(Exception):
    """Stands for the errors of Ray."""


class GetTimeoutError(RayError):
    """Stands for the end of a wait."""


@pytest.fixture
def ray(monkeypatch):
    """A cluster whose tasks answer as told."""
    cluster = SimpleNamespace(
        answer={}, calls=[], timeouts=[], options=None, resources={"CPU": 4.0, "limbeck_measure": 1.0}
    )

    def remote(**options):
        cluster.options = options
        submit = SimpleNamespace(remote=lambda *arguments: cluster.calls.append(arguments))
        return lambda function: submit

    def get(task, timeout):
        cluster.timeouts.append(timeout)
        if isinstance(cluster.answer, Exception):
            raise cluster.answer
        return cluster.answer

    module = SimpleNamespace(
        cluster_resources=lambda: cluster.resources,
        remote=remote,
        get=get,
        cancel=lambda task, force: cluster.calls.append("cancelled"),
        exceptions=SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError),
    )
    monkeypatch.setattr("limbeck.distributed.ray_cluster.connect", lambda address: module)
    return cluster


def test_a_session_takes_the_resource_and_no_core_of_the_cluster(ray, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"graph")
    ray.answer = {"seconds": []}
    assert RayConnection("limbeck_measure").measure("{}", [tmp_path / "model.onnx"], FACTS) == {"seconds": []}
    assert (ray.options["num_cpus"], ray.options["resources"]) == (0, {"limbeck_measure": 1})
    assert ray.calls == [("limbeck.measure.service.ray_node:measured", "{}", [b"graph"])]


def test_the_state_of_a_node_may_wait_for_sessions_of_others(ray):
    """It takes the resource as they do, or it would disturb them, and they may last as long as the node allows."""
    ray.answer = {"limits": {"seconds": ServiceOptions.max_seconds}}
    connection = RayConnection("limbeck_measure")
    connection.measure("{}", [], connection.health())
    assert ray.options["resources"] == {"limbeck_measure": 1}
    assert ray.timeouts[0] == ray.timeouts[1] > 2 * ServiceOptions.max_seconds


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ({"refused": "graph 0: is not valid ONNX"}, InputError, "refuses this: graph 0: is not valid"),
        (GetTimeoutError(), ServiceError, "does not answer in time"),
        (RayError("lost\nthe node died"), ServiceError, "is lost, or failed: the node died"),
    ],
)
def test_whatever_goes_wrong_is_one_error(ray, answer, kind, message):
    ray.answer = answer
    with pytest.raises(InputError, match=message) as refused:
        RayConnection("limbeck_measure").measure("{}", [], FACTS)
    assert type(refused.value) is kind


def test_a_resource_that_no_node_has_is_refused(ray):
    with pytest.raises(ServiceError, match=r"has the resource 'limbeck_meassure'; did you mean 'limbeck_measure'"):
        RayConnection("limbeck_meassure").health()
    assert ray.calls == []


def test_without_a_cluster_the_variable_is_named(monkeypatch):
    def connect(address):
        raise InputError("address: no Ray cluster answers at 'auto'")

    monkeypatch.setattr("limbeck.distributed.ray_cluster.connect", connect)
    with pytest.raises(ServiceError, match="is in no Ray cluster; set RAY_ADDRESS"):
        RayConnection("limbeck_measure").health()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'limbeck[ray]'")
def test_a_node_of_a_cluster_measures_as_this_machine_does(candidate, exported, monkeypatch):
    """Two nodes: one that works, and one with the resource and without cores that work could take."""
    from ray.cluster_utils import Cluster

    memory = {"object_store_memory": 100_000_000}
    root = mkdtemp(prefix="ray-", dir="/tmp")  # tmp_path would make the names of its sockets too long
    monkeypatch.setenv("RAY_TMPDIR", root)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    try:
        cluster.add_node(num_cpus=0, resources={"limbeck_measure": 1}, **memory)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", cluster.address)
            target = Target(url="ray:limbeck_measure")
            assert Service(target.url).check(target)["machine"] == machine()
            remote = Latency.of(samples=8, rounds=3).measure([candidate, exported], RunContext(target=target))
            facts = {(index, fact.name): fact for index, fact in remote}
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
        rmtree(root, ignore_errors=True)
    fact = facts[1, "latency_p50"]
    assert fact.value > 0
    assert fact.target == f"{Target()}, at ray:limbeck_measure"
    assert fact.detail["runtime"] == "onnxruntime, model.onnx"
    assert fact.detail["others"] >= 0
