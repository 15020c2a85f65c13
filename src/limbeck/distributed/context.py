"""Several processes that train together, as torchrun and ``accelerate launch`` start them.

Process 0 leads and the others help. They meet in :func:`agree`: every process gives a small message and gets those of
all. Waiting there takes no processor time and may last for days, so the others may wait while process 0 measures. A
process that fails says so at its next meeting, and then all of them fail there: nobody waits for one who gave up.
Whoever is alone (the usual case) pays nothing: nothing here imports torch then.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

from limbeck.errors import LimbeckError, ProcessLost, StepFailed

T = TypeVar("T")
PATIENCE = timedelta(days=30)
"""How long a meeting may be waited for; process 0 measures for hours."""
GRACE = 10.0
"""Seconds until a process that broke a connection is surely gone: it may still be telling its own error."""


class Peer(NamedTuple):
    """Where a process runs; ``born`` tells it from a later process with the same number."""

    host: str
    pid: int
    born: float


class _WorldInfo(NamedTuple):
    """All processes, and the group of connections over which they meet."""

    peers: tuple[Peer, ...]
    group: Any


def _from_environment(*names: str, default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)


def count() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return _from_environment("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", default=1)


def rank() -> int:
    """The number of this process, from 0."""
    return _from_environment("RANK", "OMPI_COMM_WORLD_RANK", default=0) if count() > 1 else 0


@cache
def join() -> _WorldInfo:
    """Connect the processes (once; all must call it), and learn who the others are.

    Training uses the default group (NCCL on GPUs, gloo on processors), meetings a gloo group of their own.
    """
    import psutil
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # else Accelerate takes torchrun without a GPU for one process
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    me = Peer(socket.gethostname(), os.getpid(), psutil.Process().create_time())
    found = [Peer(*json.loads(one)) for one in _exchange(json.dumps(me).encode(), group)]
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _told_to_end)
    return _WorldInfo(tuple(found), group)


def leave() -> None:
    """Close the connections; the work is done."""
    from accelerate import PartialState

    if signal.getsignal(signal.SIGTERM) is _told_to_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    join.cache_clear()  # the last reference to the group: its threads must end before the interpreter does
    PartialState().destroy_process_group()


def agree(error: Exception | None = None, /, **said: Any) -> list[dict[str, Any]]:
    """Meet all processes: give a message, get everyone's in the order of their numbers.

    Args:
        error: What went wrong here; the others raise it as :class:`StepFailed`, the caller itself goes on.
        said: The message, plain JSON values.

    Raises:
        StepFailed: another process failed.
        ProcessLost: another process is gone.
    """
    company = join()
    if error is not None:
        told = isinstance(error, LimbeckError)
        said = {"error": str(error) if told else f"{type(error).__name__}: {error}"}
    with connected():
        sent = _exchange(json.dumps(said).encode() if said else b"", company.group)
    heard: list[dict[str, Any]] = [json.loads(one) if one else {} for one in sent]
    failed = [f"{_name(number)}: {one['error']}" for number, one in enumerate(heard) if "error" in one]
    if failed and error is None:
        raise _told(StepFailed("; ".join(failed)))
    return heard


@contextmanager
def agreeing() -> Iterator[None]:
    """Meet after the body: all processes went through it, or all raise. Does nothing for one process."""
    try:
        yield
    except ProcessLost:
        raise
    except Exception as error:
        if count() > 1 and not getattr(error, "told", False):
            agree(_told(error))
        raise
    if count() > 1:
        agree()


def broadcast_from_main(work: Callable[[], T]) -> T:
    """What ``work`` returns on process 0 (plain JSON values); the others wait for it."""
    if count() == 1:
        return work()
    made: list[T] = []
    if rank() == 0:
        try:
            made.append(work())
        except ProcessLost:
            raise
        except Exception as error:
            agree(_told(error))
            raise
        agree(value=made[0])
        return made[0]
    first = agree()[0]
    if "value" not in first:
        raise LimbeckError("the processes are out of step: process 0 does something else")
    value: T = first["value"]
    return value


@contextmanager
def connected() -> Iterator[None]:
    """Tell of a connection that breaks within the body by the name of the process that is gone."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


def _exchange(mine: bytes, group: Any) -> list[bytes]:
    """The bytes that each process gives."""
    import torch
    from torch import distributed

    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(mine)]), group=group)
    longest = max(int(size) for size in sizes)
    if not longest:
        return [b""] * count()
    padded = torch.frombuffer(bytearray(mine.ljust(longest, b"\0")), dtype=torch.uint8)
    found = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(found, padded, group=group)
    return [bytes(one.numpy())[: int(size)] for one, size in zip(found, sizes, strict=True)]


def _told(error: Exception) -> Exception:
    """Mark an error as known to all processes."""
    error.told = True  # type: ignore[attr-defined]
    return error


def _name(number: int) -> str:
    return f"process {number} of {count()} (pid {join().peers[number].pid})"


def _gone() -> list[str]:
    """The processes of this machine that are no more."""
    import psutil

    found = []
    for number, peer in enumerate(join().peers):
        try:
            seen = psutil.Process(peer.pid)
            alive = seen.create_time() == peer.born and seen.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if peer.host == socket.gethostname() and not alive:
            found.append(_name(number))
    return found


def _lost(cause: BaseException | None = None) -> ProcessLost:
    """The error that names who is gone; a process that fails by itself needs a moment to be."""
    until = time.monotonic() + GRACE
    while not (gone := _gone()) and time.monotonic() < until:
        time.sleep(0.1)
    if gone:
        verb = "is" if len(gone) == 1 else "are"
        return ProcessLost(f"{', '.join(gone)} {verb} gone; the same command goes on from the last checkpoint")
    return ProcessLost(f"the connection to the other processes broke ({cause}); run the same command to go on")


def _told_to_end(number: int, frame: Any) -> None:
    """Launchers end the others when one process is gone: say which one that was."""
    if _gone():
        raise _lost()
    if rank():
        os._exit(128 + number)  # it has nothing to put away
    raise SystemExit(128 + number)
