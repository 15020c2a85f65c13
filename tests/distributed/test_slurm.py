"""Jobs of submitit as workers, on its own stand-ins for a cluster."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import remote_work

from limbeck.distributed.slurm import Job, SlurmJobs
from limbeck.distributed.workers import Needs
from limbeck.errors import InputError, ProcessLost

pytest.importorskip("submitit")


def test_work_is_carried_out_in_this_process_with_the_debug_executor(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    heard = []
    jobs = SlurmJobs(tmp_path, cluster="debug", threads=2)
    result = jobs.call(remote_work.double, {"value": 4}, Needs("train", bytes=3 * 10**9), heard.append)
    assert (result["value"], result["threads"]) == (8, "2")
    assert heard == [{"note": "doubling 4"}]
    jobs.close()


@pytest.mark.slow
def test_work_is_carried_out_in_a_job_of_its_own(tmp_path, monkeypatch):
    support = str(Path(remote_work.__file__).parent)  # the job finds the work of these tests
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (support, os.environ.get("PYTHONPATH")))))
    jobs = SlurmJobs(tmp_path, cluster="local", threads=1, minutes=2)
    assert jobs.call(remote_work.needy, {"object": 5}, Needs(), lambda values: None) == {"value": 5}


def test_a_job_that_is_ended_is_submitted_again_with_its_arguments():
    job = pickle.loads(pickle.dumps(Job(3)))
    delayed = job.checkpoint(remote_work.double, {"value": 4})
    assert delayed.function is job
    assert delayed.args == (remote_work.double, {"value": 4})


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of Slurm on the path, that do nothing; ``scancel`` says which job it was called for, and fails."""
    scripts = {"srun": "exit 0", "scancel": f"echo $1 >> {tmp_path}/cancelled; exit 1"}
    for name, script in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(tmp_path), os.environ["PATH"])))
    return tmp_path


@pytest.mark.parametrize(("minutes", "times"), [(60, 7 * 24), (24 * 60, 7), (100_000, 1)])
def test_a_job_may_reach_its_time_limit_for_a_week(cluster, minutes, times):
    jobs = SlurmJobs(cluster / "jobs", minutes=minutes)
    assert jobs._executor(Needs())._executor.max_num_timeout == times


def test_every_job_is_cancelled_although_one_is_over_already(cluster):
    import submitit

    jobs = SlurmJobs(cluster / "jobs")
    jobs._running = {submitit.SlurmJob(cluster, str(number)) for number in (11, 12)}
    jobs.close()
    assert sorted((cluster / "cancelled").read_text().split()) == ["11", "12"]


@pytest.mark.parametrize("sbatch", ["echo 'Socket timed out on send/recv operation' >&2; exit 1", "echo welcome", None])
def test_a_job_that_slurm_does_not_take_ends_the_run(cluster, monkeypatch, sbatch):
    jobs = SlurmJobs(cluster / "jobs")
    if sbatch is None:
        monkeypatch.setenv("PATH", "/nowhere")
    (cluster / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
    (cluster / "sbatch").chmod(0o755)
    with pytest.raises(ProcessLost, match="could not be submitted"):
        jobs.call(remote_work.double, {"value": 4}, Needs(), lambda values: None)
    jobs.close()


def test_a_machine_without_slurm_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="Slurm does not answer here"):
        SlurmJobs(tmp_path, cluster="slurm")
