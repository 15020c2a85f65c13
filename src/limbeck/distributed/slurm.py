"""Workers that are jobs of Slurm, submitted by submitit. Needs ``limbeck[slurm]``.

The nodes see the folder of the store and that of the run. A job that its time limit or a preemption ends is submitted
again, and its step resumes from its last checkpoint. One that goes on beyond its time limit for longer than a week may
be a step that never reaches a checkpoint; it is lost, and the same command resumes it.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from limbeck.distributed.processes import THREADS
from limbeck.distributed.workers import Log, Needs, Values, WorkFunction, collected
from limbeck.errors import InputError, MissingExtra, ProcessLost

LONGEST = 7 * 24 * 60
"""Minutes after which a job that reaches its time limit is not submitted again."""


class SlurmJobs:
    """A backend of jobs."""

    def __init__(
        self,
        folder: Path,
        *,
        cluster: str = "slurm",
        threads: int = 1,
        gpus: float = 0.0,
        partition: str | None = None,
        minutes: int = 24 * 60,
    ) -> None:
        """Prepare to submit.

        Args:
            folder: Where jobs keep what they are given, what they return, and their logs.
            cluster: Of submitit: 'slurm', 'local' (processes here) or 'debug' (in this process).
            threads: Cores of each job, and its threads.
            gpus: GPUs of each job that trains.
            partition: Partition of Slurm.
            minutes: Time limit of a job.

        Raises:
            MissingExtra: submitit is not installed.
            InputError: Slurm is not here.
        """
        try:
            self._submitit = import_module("submitit")
        except ImportError:
            raise MissingExtra("submitit", "slurm") from None
        self._folder, self._cluster, self._threads = folder, cluster, threads
        self._gpus, self._partition, self._minutes = gpus, partition, minutes
        self._running: set[Any] = set()
        try:
            self._executor(Needs())
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"executor: Slurm does not answer here ({error}); its commands must be on the path"
            ) from None

    def _executor(self, needs: Needs) -> Any:  # of submitit, which has no stubs
        times = {"slurm_max_num_timeout": max(1, LONGEST // self._minutes)}
        executor = self._submitit.AutoExecutor(self._folder, cluster=self._cluster, **times)
        options: dict[str, Any] = {"timeout_min": self._minutes, "name": "limbeck", "cpus_per_task": self._threads}
        if needs.lane == "train" and self._gpus:
            options["gpus_per_node"] = int(self._gpus)
        if self._partition is not None:
            options["slurm_partition"] = self._partition
        if needs.bytes:
            options["mem_gb"] = -(-needs.bytes // 10**9)
        executor.update_parameters(**options)
        return executor

    def call(self, work: WorkFunction, payload: Values, needs: Needs, report: Log) -> Values:
        """Carry out a piece of work in a job.

        Args:
            work: The function.
            payload: Its argument.
            needs: What the work needs.
            report: Receives what it reported, when it has ended.

        Raises:
            ProcessLost: The job was lost, or Slurm did not take it.
        """
        try:
            job = self._executor(needs).submit(Job(self._threads), work, payload)
        except (RuntimeError, ValueError, OSError) as error:  # its errors of commands and of answers are RuntimeErrors
            raise ProcessLost(f"a job could not be submitted to Slurm: {error}") from error
        self._running.add(job)
        try:
            result, reports = job.result()
        except self._submitit.core.utils.UncompletedJobError as error:
            raise ProcessLost(f"job {job.job_id} was lost: {error}") from error
        finally:
            self._running.discard(job)
        for values in reports:
            report(values)
        return dict(result)

    def close(self) -> None:
        """Cancel the jobs that still run."""
        for job in list(self._running):
            with suppress(OSError):  # the others are to end, too
                job.cancel(check=False)


class Job:
    """What a job does; submitit submits it again where a time limit or a preemption ends it."""

    def __init__(self, threads: int) -> None:
        """Keep the number of threads."""
        self.threads = threads

    def __call__(self, work: WorkFunction, payload: Values) -> tuple[Values, list[Values]]:
        """Carry out a piece of work; return its result and what it reported.

        Args:
            work: The function.
            payload: Its argument.
        """
        import os

        os.environ.update(dict.fromkeys(THREADS, str(self.threads)), TOKENIZERS_PARALLELISM="false")
        return collected(work, payload)

    def checkpoint(self, work: WorkFunction, payload: Values) -> object:
        """Return what to submit again.

        Args:
            work: The function.
            payload: Its argument.
        """
        return import_module("submitit").helpers.DelayedSubmission(self, work, payload)
