"""Run a function in a fresh Python process with fixed threads and cores, so nothing here affects a measurement.

Data is passed as files in a temporary folder: JSON, with numpy arrays in an npz file. Nothing is pickled.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from limbeck.core.target import Target
from limbeck.errors import LimbeckError
from limbeck.measure.pinning import cores_for
from limbeck.storage.disk import has_space
from limbeck.storage.drafts import temporary_folder

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


START = """
import os, sys
if sys.argv[2]:  # before anything starts threads or counts cores
    try:
        os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
    except OSError:  # the cores of this process have been changed meanwhile
        pass
sys.path[:] = dict.fromkeys([*sys.argv[3:], *sys.path])
from limbeck.measure.isolation import start
start(sys.argv[1])
"""
"""Code of a child process. It imports from its parent's paths; otherwise it might run another limbeck."""


def run_isolated(
    function: str,
    payload: Mapping[str, Any],
    threads: int = 1,
    timeout: float | None = None,
    *,
    pinned: bool = True,
) -> dict[str, Any]:
    """Call a function in a new process and return the dictionary that it returns.

    Payload and result are JSON; values of the outermost level may also be numpy arrays. The function finds ``threads``
    in its payload, and whether the process is ``pinned``.

    Args:
        function: The function, as ``package.module:name``.
        payload: Its only argument.
        threads: Threads of the process.
        timeout: Seconds after which the process is killed; None for as long as it takes.
        pinned: Whether the process runs on ``threads`` cores alone, where the system has more (``measure/pinning.py``).

    Raises:
        LimbeckError: The process took too long, or failed; the message ends with what it wrote to its error stream.
        OSError: The disk of the temporary files is full.
    """
    with temporary_folder() as folder:
        cores = cores_for(threads) if pinned else ()
        _write(folder, "in", {"function": function, "threads": threads, "pinned": bool(cores), **payload})
        command = [sys.executable, "-P", "-c", START, str(folder), ",".join(map(str, cores)), *_import_path()]
        with open(folder / "stderr", "wb") as errors:
            child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, env=_environment(threads)
            )
            try:
                status = child.wait(timeout)
            except subprocess.TimeoutExpired as error:
                raise LimbeckError(f"{function} took longer than {timeout:g} seconds and was ended") from error
            finally:
                child.kill()
                child.communicate()
        if status:
            if not has_space(folder):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            message = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
            raise LimbeckError(f"{function} failed in its own process ({_reason(status)}):\n{message[-3000:]}")
        return _read(folder, "out")


def run_timed(function: str, payload: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Call a function that times models: with the threads of the target, and pinned unless that is a GPU.

    Args:
        function: As for :func:`run_isolated`.
        payload: Its argument.
        target: Where the models are timed.
    """
    return run_isolated(function, payload, target.threads, pinned=target.device == "cpu")


def _import_path() -> list[str]:
    """Return the import paths of this process without the working folder, where a file may be named like a module."""
    package = str(Path(__file__).parents[2])
    return [path for path in sys.path if path == package or (path and Path(path) != Path.cwd())]


def _environment(threads: int) -> dict[str, str]:
    fixed = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **fixed, "TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"}


def _reason(status: int) -> str:
    return f"killed by signal {-status}; is there enough memory?" if status < 0 else f"exit status {status}"


def _write(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    arrays = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    plain = {key: value for key, value in values.items() if key not in arrays}
    (folder / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")
    np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)


def _read(folder: Path, name: str) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        return plain | dict(arrays)


def _die_with_parent() -> None:
    """Exit when the input ends: the parent holds its other end and never writes, so it ends with the parent."""
    sys.stdin.buffer.read()
    os._exit(1)


def main(folder: Path) -> None:
    """Read the payload in the child process, call the function and write its result."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    payload = _read(folder, "in")
    module, name = payload.pop("function").split(":")
    import torch

    torch.set_num_threads(payload["threads"])
    _write(folder, "out", getattr(import_module(module), name)(payload))


def start(folder: str) -> NoReturn:
    """Do the work of a child process and end it; an error goes to its error stream."""
    try:
        main(Path(folder))
        status = 0
    except LimbeckError as error:
        sys.stderr.write(str(error))
        status = 1
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # runtimes tear down slowly, and the watching thread need not be joined
