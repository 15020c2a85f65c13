"""Ray tasks as workers: the same results as here, and errors in words."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import remote_work

from limbeck.distributed.ray_cluster import RayCluster
from limbeck.distributed.workers import Needs
from limbeck.errors import InputError, ProcessLost

SUPPORT = str(Path(remote_work.__file__).parent)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'limbeck[ray]'"),  # it takes long to import
]


def test_an_address_without_a_cluster_is_refused():
    with pytest.raises(InputError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"):
        RayCluster("127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:  # its workers find the work of these tests
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (SUPPORT, os.environ.get("PYTHONPATH")))))
        backend = RayCluster(threads=1)  # in a folder of tests, whose name is too long for the sockets of Ray
        yield backend
        backend.close()


def test_work_is_carried_out_on_a_node_and_reports(cluster):
    heard = []
    result = cluster.call(remote_work.double, {"value": 4}, Needs(), heard.append)
    assert (result["value"], result["threads"]) == (8, "1")
    assert result["pid"] != os.getpid()
    assert heard == [{"note": "doubling 4"}]


def test_the_work_of_a_killed_worker_begins_again(cluster, tmp_path):
    result = cluster.call(remote_work.killed_once, {"mark": str(tmp_path / "mark")}, Needs(), lambda values: None)
    assert result == {"value": "made by another process"}


def test_work_that_the_cluster_does_not_take_ends_the_run(cluster, monkeypatch):
    class Disconnected:
        def options(self, **options):
            raise ConnectionError("the cluster is gone")

    monkeypatch.setattr(cluster, "_remote", Disconnected())
    with pytest.raises(ProcessLost, match="does not take a step: the cluster is gone"):
        cluster.call(remote_work.double, {"value": 4}, Needs(), lambda values: None)


def test_an_error_comes_back(cluster):
    with pytest.raises((ValueError, ProcessLost), match="cannot take 3"):
        cluster.call(remote_work.fail, {"value": 3}, Needs(), lambda values: None)
