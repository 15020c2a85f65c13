"""Checkpoints of the training loop, written whole or not at all, and read with the digests of their files.

One that cannot be read costs the training its progress, and changes nothing else.
With several processes, each saves its own random states; everything else is the same on all, and process 0 writes it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from limbeck.core.finite import load_json
from limbeck.distributed import context as processes
from limbeck.storage.atomic import replacing
from limbeck.storage.digests import damage, folder_digests
from limbeck.storage.machine_errors import is_machine_error

if TYPE_CHECKING:
    from torch import Tensor, nn

LOOP = "loop.json"
Log = Callable[..., None]
"""Called with a message, and with numbers by name."""


def attach(accelerator: Accelerator) -> None:
    """Make the accelerator save and load weights with our functions.

    Its own writer treats empty tensors (of layers that were pruned away) as shared and cannot read them back.
    """

    def _write(models: list[nn.Module], weights: list[dict[str, Tensor]], folder: str) -> None:
        for number, tensors in enumerate(weights):
            if tensors and accelerator.is_main_process:  # an objective without parameters has nothing to save
                plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
                save_file(plain, Path(folder) / f"weights-{number}.safetensors")
        weights.clear()

    def _read(models: list[nn.Module], folder: str) -> None:
        for number, model in enumerate(models):
            path = Path(folder) / f"weights-{number}.safetensors"
            if path.is_file():
                accelerator.unwrap_model(model).load_state_dict(load_file(path))
        models.clear()

    accelerator.register_save_state_pre_hook(_write)
    accelerator.register_load_state_pre_hook(_read)


def save(accelerator: Accelerator, folder: Path, loop: dict[str, Any], keep: int = 1) -> None:
    """Write weights, optimizer, random states and counters; a checkpoint gets its final name once it is complete.

    Args:
        accelerator: Holds everything that was prepared.
        folder: Where to write ``checkpoint-STEPS``.
        loop: The loop's counters, plain JSON values; ``steps`` among them.
        keep: How many checkpoints to keep, the newest.
    """
    fresh = folder / "checkpoint.new"
    processes.broadcast_from_main(lambda: shutil.rmtree(fresh, ignore_errors=True))
    try:
        with processes.synchronized():
            accelerator.save_state(str(fresh), safe_serialization=True)
    except Exception:
        shutil.rmtree(fresh, ignore_errors=True)  # the disk may be full
        raise
    metadata = {"processes": accelerator.num_processes, "loop": loop}
    processes.broadcast_from_main(lambda: _complete(fresh, folder / f"checkpoint-{loop['steps']}", metadata, keep))


def _complete(fresh: Path, final: Path, metadata: dict[str, Any], keep: int) -> None:
    metadata["files"] = folder_digests(fresh)
    (fresh / LOOP).write_text(json.dumps(metadata))
    shutil.rmtree(final, ignore_errors=True)  # it was unreadable, or the run would have continued from it
    os.replace(fresh, final)
    for old in checkpoints(final.parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def load(
    accelerator: Accelerator,
    folder: Path,
    log: Log = lambda message: None,
    check: Callable[[dict[str, Any]], None] = lambda loop: None,
) -> dict[str, Any] | None:
    """Restore the newest checkpoint that can be read; if none can, leave everything as it was.

    Checkpoints of another number of processes are ignored: their steps used other batches.

    Args:
        accelerator: Holds everything that was prepared, in the same order as when saving.
        folder: Where the checkpoints are.
        log: Called with a message for every unreadable checkpoint.
        check: Raises an error if the loop cannot go on from these counters.

    Returns:
        The loop's counters; None if there is no checkpoint to go on from.
    """
    start: _State | None = None
    paths = checkpoints(folder)
    for path in paths:
        metadata = processes.broadcast_from_main(partial(_read, path, accelerator.num_processes, check))
        problem = str(metadata.get("problem", ""))
        if not metadata:
            continue
        if not problem:
            start = start or _State(accelerator)
            try:
                accelerator.load_state(str(path))
            except Exception as error:  # each file format raises its own errors for damaged files
                if is_machine_error(error):
                    raise
                problem = _first_line(error)
            if not (problem := _any_problem(problem)):
                return dict(metadata["loop"])
            start.restore()  # the failed attempt may have restored half of it
        end = "; the training begins again" if path == paths[-1] else ""
        log(f"checkpoint {path} cannot be read ({problem}){end}")
        # or it would count as the newest one, and those of the training that begins again as old
        processes.broadcast_from_main(partial(shutil.rmtree, path, ignore_errors=True))
    return None


def precision(folder: Path) -> Literal["no", "bf16", "fp16"] | None:
    """Return the precision of the training that left the checkpoints; None if there are none that say it."""
    for path in checkpoints(folder):
        try:
            chosen = json.loads((path / LOOP).read_text())["loop"]["mixed_precision"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
        if chosen in ("no", "bf16", "fp16"):
            return chosen  # type: ignore[no-any-return]
    return None


def _read(path: Path, count: int, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return the counters of a checkpoint, or its problem; nothing if it is of another number of processes."""
    try:
        metadata = load_json((path / LOOP).read_text())
        loop = {**metadata["loop"]}
        if metadata["processes"] != count:
            return {}
        if problem := damage(path, metadata.get("files", {})):  # earlier versions noted no digests
            raise ValueError(problem)
        check(loop)
    except Exception as error:  # each file format raises its own errors for damaged files
        if is_machine_error(error):
            raise
        return {"problem": _first_line(error)}
    return {"loop": loop}


def _any_problem(problem: str) -> str:
    """Return a problem that any of the processes has; empty if none has one."""
    if processes.count() == 1:
        return problem
    return next((row["problem"] for row in processes.all_gather(problem=problem) if row["problem"]), "")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


class _State:
    """Everything that loading a checkpoint changes, to be put back if that fails half way."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator, self._step = accelerator, accelerator.step
        self._weights = [
            (module, {name: tensor.detach().clone() for name, tensor in module.state_dict().items()})
            for module in accelerator._models
        ]
        scalers = [accelerator.scaler] if accelerator.scaler is not None else []
        stateful = (*accelerator._optimizers, *accelerator._schedulers, *scalers)
        self._states = [(owner, copy.deepcopy(owner.state_dict())) for owner in stateful]
        self._random = random.getstate(), np.random.get_state(), torch.get_rng_state(), _device_states()

    def restore(self) -> None:
        """Put everything back."""
        self._accelerator.step = self._step
        for module, weights in self._weights:
            module.load_state_dict(weights)
        for owner, state in self._states:
            owner.load_state_dict(state)
        python, numpy, generator, devices = self._random
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(generator)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _device_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def save_weights(path: Path, tensors: Mapping[str, Tensor], step: int) -> None:
    """Write the weights of a step, with a digest; the file appears whole or not at all.

    Args:
        path: The file.
        tensors: The weights.
        step: The step that they are of.
    """
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as draft:
        save_file(plain, draft, metadata={"step": str(step), "sha256": _digest(plain)})


def load_weights(path: Path, step: int) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote.

    Args:
        path: The file.
        step: The step whose weights are needed; those of a later one serve too, as a resumed training gets there again.

    Raises:
        ValueError: The file holds something else, or was changed.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    tensors = load_file(path)
    if metadata and (int(metadata["step"]) < step or _digest(tensors) != metadata["sha256"]):
        raise ValueError(f"{path.name} does not hold the weights of step {step}")
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
