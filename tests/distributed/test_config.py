"""Options of executors."""

from __future__ import annotations

import pytest
import remote_work

from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.errors import InputError, MissingExtra


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 2}, "workers: the executor 'local' carries out one step after another"),
        ({"executor": "processes", "address": "auto"}, "address: only the executor 'ray' has it, not 'processes'"),
        ({"executor": "ray", "partition": "long"}, "partition: only the executor 'slurm' has it, not 'ray'"),
        ({"executor": "processes", "cluster": "local"}, "cluster: only the executor 'slurm' has it, not 'processes'"),
        ({"executor": "processes", "gpus": 1}, "gpus: only the executors 'ray' and 'slurm' have it, not 'processes'"),
        ({"executor": "slurm", "gpus": 0.5}, "gpus: should be a whole number with 'slurm', got 0.5"),
        ({"executor": "ray", "gpus": 1.5}, "gpus: should be a whole number, or less than 1, with 'ray', got 1.5"),
    ],
)
def test_an_option_without_a_meaning_is_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message), open_workers(ExecutorConfig(**options), tmp_path):
        pass


def test_gpus_are_for_clusters():
    for config in (ExecutorConfig("ray", gpus=0.5), ExecutorConfig("ray", gpus=2), ExecutorConfig("slurm", gpus=1.0)):
        config.check()


def test_local_needs_no_workers(tmp_path):
    with open_workers(ExecutorConfig(), tmp_path) as workers:
        assert workers is None


def test_processes_are_as_many_as_said(tmp_path):
    with open_workers(ExecutorConfig("processes", workers=1, threads=1), tmp_path) as workers:
        assert workers.count == 1
        assert workers.submit(remote_work.double, {"value": 2}).result(60)["value"] == 4


@pytest.mark.parametrize(("executor", "module"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_is_named(executor, module, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtra, match=rf"limbeck\[{executor}\]"), open_workers(ExecutorConfig(executor), tmp_path):
        pass
