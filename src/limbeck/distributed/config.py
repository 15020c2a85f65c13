"""Where the work of a run is carried out: options of the command line, of a settings file and of the Python API.

None of them affects a key: what is made is the same, wherever it is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from limbeck.errors import InputError

if TYPE_CHECKING:
    from limbeck.distributed.workers import Backend, Workers

Kind = Literal["local", "processes", "ray", "slurm"]


@dataclass(frozen=True)
class ExecutorConfig:
    """Options of executors.

    Attributes:
        executor: 'local' carries out one step after another in this process. 'processes' makes candidates, and pieces
            of long steps, in worker processes on this machine, 'ray' on the nodes of a Ray cluster, 'slurm' in jobs
            that submitit submits.
        workers: How much is made at once; one for every two cores of this machine unless given.
        threads: Threads of each worker; unless given an equal share of this machine's cores with 'processes', and 1
            with 'ray' and 'slurm'. Weights are the same bit for bit only with the same number.
        address: Address of a Ray cluster, as in ``ray.init``; 'local' starts one on this machine.
        gpus: GPUs of each worker that trains, with 'ray' and 'slurm'; a part of one only with 'ray'.
        partition: Partition of Slurm.
        minutes: Time limit of a Slurm job; a job that is ended by it is submitted again and resumes, for a week in all.
        cluster: Of submitit: 'slurm', or 'local' and 'debug', which need no Slurm.
    """

    executor: Kind = "local"
    workers: Annotated[int, Ge(1), Le(10_000)] | None = None
    threads: Annotated[int, Ge(1), Le(1024)] | None = None
    address: str | None = None
    gpus: Annotated[float, Ge(0), Le(64)] = 0.0
    partition: str | None = None
    minutes: Annotated[int, Ge(1), Le(100_000)] = 24 * 60
    cluster: Literal["slurm", "local", "debug"] = "slurm"

    def check(self, *, limited: bool = False) -> None:
        """Refuse options that another executor has, and GPUs that this one cannot give.

        Args:
            limited: Whether the run has a limit of time.

        Raises:
            InputError: The message names the executor that has the option, or what to give.
        """
        if limited and self.executor != "local":
            raise InputError(
                f"max_minutes: is for runs in one process; the executor '{self.executor}' begins all at once, so "
                "leave it out (--set max_minutes=null), or use 'local'"
            )
        own = {"ray": ("address",), "slurm": ("partition", "cluster", "minutes")}
        for executor, names in own.items():
            for name in names:
                if self.executor != executor and getattr(self, name) != getattr(type(self), name, None):
                    raise InputError(f"{name}: only the executor '{executor}' has it, not '{self.executor}'")
        for name in ("workers", "threads", "gpus"):
            if self.executor == "local" and getattr(self, name):
                raise InputError(
                    f"{name}: the executor 'local' carries out one step after another in this process; choose "
                    "'processes', 'ray' or 'slurm'"
                )
        if self.executor == "processes" and self.gpus:
            raise InputError("gpus: only the executors 'ray' and 'slurm' have it, not 'processes'")
        if not float(self.gpus).is_integer() and (self.executor == "slurm" or self.gpus > 1):
            or_part = ", or less than 1," if self.executor == "ray" else ""
            raise InputError(f"gpus: should be a whole number{or_part} with '{self.executor}', got {self.gpus}")


@contextmanager
def open_workers(config: ExecutorConfig, folder: Path) -> Iterator[Workers | None]:
    """Yield the workers of an executor, and give them back at the end; None for 'local'.

    Args:
        config: Options of the executor.
        folder: Folder of the run, for logs of jobs.
    """
    config.check()
    if config.executor == "local":
        yield None
        return
    from limbeck.distributed.workers import Workers

    cores = len(os.sched_getaffinity(0))
    count = config.workers or max(1, cores // 2)
    workers = Workers(_backend(config, count, folder), count)
    try:
        yield workers
    finally:
        workers.close()


def _backend(config: ExecutorConfig, count: int, folder: Path) -> Backend:
    if config.executor == "processes":
        from limbeck.distributed.processes import Processes

        return Processes(count, config.threads)
    if config.executor == "ray":
        from limbeck.distributed.ray_cluster import RayCluster

        return RayCluster(config.address, threads=config.threads, gpus=config.gpus)
    from limbeck.distributed.slurm import SlurmJobs

    return SlurmJobs(
        folder / "slurm",
        cluster=config.cluster,
        threads=config.threads or 1,
        gpus=config.gpus,
        partition=config.partition,
        minutes=config.minutes,
    )
