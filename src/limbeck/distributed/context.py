"""Several processes that train together, as torchrun and ``accelerate launch`` start them.

Process 0 leads and the others help. They synchronize in :func:`all_gather`: every process sends a small message and
receives those of all. Waiting there takes no processor time and may last for days, so the others can wait while process
0 measures. A process that fails reports it in its next call, and the call then fails on all processes: none waits for
one that gave up. A single process (the usual case) pays nothing: torch is not even imported.
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
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from limbeck.errors import LimbeckError, ProcessLost, StepFailed

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")
TIMEOUT = timedelta(days=30)
"""Longest wait for the other processes; process 0 measures for hours."""
EXIT_TIMEOUT = 10.0
"""Seconds given to a process that broke a connection to exit: it may still be printing its own error."""


class Peer(NamedTuple):
    """Where a process runs; ``started`` distinguishes it from a later process with the same pid."""

    host: str
    pid: int
    started: float


class _WorldInfo(NamedTuple):
    """All processes, and the process group for their messages."""

    peers: tuple[Peer, ...]
    group: ProcessGroup


def _from_environment(*names: str, default: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), default)


def count() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return _from_environment("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", default=1)


def rank() -> int:
    """Return the number of this process, from 0."""
    return _from_environment("RANK", "OMPI_COMM_WORLD_RANK", default=0) if count() > 1 else 0


@cache
def join() -> _WorldInfo:
    """Connect the processes, once; all must call it.

    Training uses the default process group (NCCL on GPUs, gloo on CPUs), messages a gloo group of their own.
    """
    import psutil
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    if not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # or Accelerate takes torchrun without a GPU for a single process
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
    me = Peer(socket.gethostname(), os.getpid(), psutil.Process().create_time())
    peers = tuple(Peer(*json.loads(message)) for message in _exchange(json.dumps(me).encode(), group))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _handle_sigterm)
    return _WorldInfo(peers, group)


def leave() -> None:
    """Close the connections when the work is done."""
    from accelerate import PartialState

    if signal.getsignal(signal.SIGTERM) is _handle_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    join.cache_clear()  # the last reference to the group: its threads must end before the interpreter does
    PartialState().destroy_process_group()


def all_gather(error: Exception | None = None, /, **message: object) -> list[dict[str, Any]]:
    """Send a message to all processes and receive everyone's, in the order of their ranks.

    Args:
        error: What went wrong on this process; the others raise it as :class:`StepFailed`, the caller goes on.
        **message: Plain JSON values.

    Returns:
        The messages by rank; values are ``Any`` because they come from JSON.

    Raises:
        StepFailed: Another process failed.
        ProcessLost: Another process is gone.
    """
    world = join()
    if error is not None:
        expected = isinstance(error, LimbeckError)
        message = {"error": str(error) if expected else f"{type(error).__name__}: {error}"}
    with connected():
        received = _exchange(json.dumps(message).encode() if message else b"", world.group)
    messages: list[dict[str, Any]] = [json.loads(text) if text else {} for text in received]
    failures = [f"{_name(number)}: {row['error']}" for number, row in enumerate(messages) if "error" in row]
    if failures and error is None:
        raise _reported(StepFailed("; ".join(failures)))
    return messages


@contextmanager
def synchronized() -> Iterator[None]:
    """Wait for all processes after the body: either all complete it, or all raise. Do nothing for a single process."""
    try:
        yield
    except ProcessLost:
        raise
    except Exception as error:
        if count() > 1 and not getattr(error, "reported", False):
            all_gather(_reported(error))
        raise
    if count() > 1:
        all_gather()


def broadcast_from_main(work: Callable[[], T]) -> T:
    """Run ``work`` on process 0 and return its result, plain JSON values, on all processes."""
    if count() == 1:
        return work()
    if rank() == 0:
        try:
            result = work()
        except ProcessLost:
            raise
        except Exception as error:
            all_gather(_reported(error))
            raise
        all_gather(value=result)
        return result
    message = all_gather()[0]
    if "value" not in message:
        raise LimbeckError("the processes are out of step: process 0 does something else")
    value: T = message["value"]
    return value


@contextmanager
def connected() -> Iterator[None]:
    """Turn a connection that breaks within the body into an error that names the lost process."""
    try:
        yield
    except RuntimeError as error:
        raise _process_lost(error) from error


def _exchange(message: bytes, group: ProcessGroup) -> list[bytes]:
    """Return the messages of all processes, by rank."""
    import torch
    from torch import distributed

    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(sizes, torch.tensor([len(message)]), group=group)
    longest = max(int(size) for size in sizes)
    if not longest:
        return [b""] * count()
    padded = torch.frombuffer(bytearray(message.ljust(longest, b"\0")), dtype=torch.uint8)
    gathered = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(gathered, padded, group=group)
    return [bytes(row.numpy())[: int(size)] for row, size in zip(gathered, sizes, strict=True)]


def _reported(error: Exception) -> Exception:
    """Mark an error as known to all processes."""
    error.reported = True  # type: ignore[attr-defined]
    return error


def _name(number: int) -> str:
    return f"process {number} of {count()} (pid {join().peers[number].pid})"


def _dead_peers() -> list[str]:
    """Return the names of the processes on this machine that have exited."""
    import psutil

    dead = []
    for number, peer in enumerate(join().peers):
        try:
            process = psutil.Process(peer.pid)
            alive = process.create_time() == peer.started and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            alive = False
        if peer.host == socket.gethostname() and not alive:
            dead.append(_name(number))
    return dead


def _process_lost(cause: BaseException | None = None) -> ProcessLost:
    """Build the error that names the lost processes; wait a moment, as a failing process needs time to exit."""
    until = time.monotonic() + EXIT_TIMEOUT
    while not (dead := _dead_peers()) and time.monotonic() < until:
        time.sleep(0.1)
    if dead:
        verb = "is" if len(dead) == 1 else "are"
        return ProcessLost(f"{', '.join(dead)} {verb} gone; the same command goes on from the last checkpoint")
    return ProcessLost(f"the connection to the other processes broke ({cause}); run the same command to go on")


def _handle_sigterm(number: int, frame: FrameType | None) -> None:
    """Report which process was lost: launchers terminate the others when one exits."""
    if _dead_peers():
        raise _process_lost()
    if rank():
        os._exit(128 + number)  # it has nothing to clean up
    raise SystemExit(128 + number)
