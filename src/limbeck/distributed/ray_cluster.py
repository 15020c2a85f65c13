"""Workers that are tasks of a Ray cluster. Needs ``limbeck[ray]`` on every node.

Ray restarts a task elsewhere when its node or its worker is lost. A node needs the package, and either the folder of
the store or a store of its own, whose missing objects travel with the task.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from importlib import import_module
from typing import Any

from limbeck.distributed.processes import THREADS
from limbeck.distributed.workers import Log, Needs, Values, WorkFunction, collected
from limbeck.errors import InputError, MissingExtra, ProcessLost

LONGEST_ROOT = 32  # bytes: of the 103 that the name of a socket may have everywhere, a session takes up to 71


class RayCluster:
    """A backend of Ray tasks."""

    def __init__(self, address: str | None = None, *, threads: int | None = None, gpus: float = 0.0) -> None:
        """Connect to a cluster.

        Args:
            address: As in ``ray.init``: 'auto', 'HOST:PORT', 'ray://HOST:PORT'; 'local' or None starts one here.
            threads: Cores of each task, and its threads; 1 unless given.
            gpus: GPUs of each task that trains.

        Raises:
            MissingExtra: Ray is not installed.
            InputError: There is no cluster at the address.
        """
        self._ray = _ray()
        self._threads, self._gpus = threads or 1, gpus
        self._ours = not self._ray.is_initialized()
        self._running: set[Any] = set()
        self._folder = _session_root() if self._ours else None
        if self._ours:
            connect(address, folder=self._folder)
        environment = {"env_vars": dict.fromkeys(THREADS, str(self._threads)) | {"TOKENIZERS_PARALLELISM": "false"}}
        self._remote: Any = self._ray.remote(max_retries=-1, runtime_env=environment)(_carry_out)

    def call(self, work: WorkFunction, payload: Values, needs: Needs, report: Log) -> Values:
        """Carry out a piece of work on some node; where that is lost, Ray begins again on another one.

        Args:
            work: The function.
            payload: Its argument.
            needs: What the work needs.
            report: Receives what it reported, when it has ended.

        Raises:
            ProcessLost: The cluster is gone, or did not take the work.
        """
        gpus = self._gpus if needs.lane == "train" else 0.0
        options = {"num_cpus": self._threads, "num_gpus": gpus, "memory": needs.bytes or None}
        try:
            task = self._remote.options(**options).remote(f"{work.__module__}:{_name(work)}", payload)
        except Exception as error:  # a cluster that is gone has many errors, and the work itself has not begun
            raise ProcessLost(f"the Ray cluster does not take a step: {error}") from error
        self._running.add(task)
        try:
            result, reports = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise ProcessLost(f"the Ray cluster lost a step for good: {error}") from error
        finally:
            self._running.discard(task)
        for values in reports:
            report(values)
        return dict(result)

    def close(self) -> None:
        """Cancel the tasks that still run, and leave the cluster."""
        for task in list(self._running):
            self._ray.cancel(task, force=True)
        if self._ours:
            self._ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def connect(address: str | None, *, folder: str | None = None) -> Any:  # the module of a library without types
    """Return Ray, connected to a cluster: the one that this process is in already, or else the one at an address.

    Args:
        address: As for :class:`RayCluster`.
        folder: Where the sessions of a cluster that is started here lie; Ray's own choice unless given.

    Raises:
        MissingExtra: Ray is not installed.
        InputError: There is no cluster at the address.
    """
    ray = _ray()
    if ray.is_initialized():
        return ray
    _reach(address)
    options: dict[str, Any] = {"include_dashboard": False, "_temp_dir": folder}
    if address not in (None, "local"):
        options = {"address": address}
    try:
        ray.init(**options, log_to_driver=False, logging_level="ERROR")
    except (Exception, SystemExit) as error:  # a node that starts too slowly is an Exception of no class of its own
        where = "can be started here" if address in (None, "local") else f"answers at '{address}'"
        raise InputError(f"address: no Ray cluster {where} ({error})") from None
    return ray


def carry_out_named(function: str, *arguments: Any) -> Values:
    """Carry out a function on a node.

    Args:
        function: The function, as ``package.module:name``.
        *arguments: Its arguments.
    """
    module, name = function.split(":")
    result: Values = getattr(import_module(module), name)(*arguments)
    return result


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise MissingExtra("ray", "ray") from None


def _session_root() -> str | None:
    """Return a folder for Ray's sessions where its own choice makes the names of their sockets too long."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return None if len(os.fsencode(folder)) <= LONGEST_ROOT else tempfile.mkdtemp(prefix="ray-", dir="/tmp")


def _reach(address: str | None) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # 'auto', 'local', or a name that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"address: no Ray cluster answers at '{address}' ({error})") from None


def _name(work: WorkFunction) -> str:
    return str(getattr(work, "__qualname__", ""))


def _carry_out(function: str, payload: Values) -> tuple[Values, list[Values]]:
    """Carry out a piece of work on a node; return its result and what it reported."""
    module, name = function.split(":")
    return collected(getattr(import_module(module), name), payload)
