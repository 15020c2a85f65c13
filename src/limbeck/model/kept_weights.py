"""Weights that a training kept on its way: written as model folders of their own, and read back as weights of a model.

A training keeps them as files beside its result: ``epoch_000`` before the first epoch, ``epoch_003`` after the third,
``step_000100`` after the hundredth optimizer step. As folders they are ``initial``, ``epoch_003``, ``step_000100``:
each opens like any model, so it may be a student, a teacher, or where another training begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from limbeck.core.paths import user_path
from limbeck.errors import InputError
from limbeck.storage.drafts import process_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.candidate import Candidate
    from limbeck.core.task import Task
    from limbeck.model.encoder import LimbeckForSequenceClassification

INITIAL = "initial"


def folder_name(file: Path) -> str:
    """Return the name of the folder that kept weights are written to."""
    return INITIAL if file.stem == "epoch_000" else file.stem


def write_kept_weights(
    model: LimbeckForSequenceClassification, tokenizer: PreTrainedTokenizerBase, files: Sequence[Path], folder: Path
) -> list[str]:
    """Write each of the kept weights as a model folder.

    Args:
        model: The trained model; it holds other weights afterwards.
        tokenizer: Its tokenizer.
        files: The kept weights.
        folder: Where the folders go.

    Returns:
        The names of the folders.
    """
    if not files:  # as of every exported model
        return []
    from safetensors.torch import load_file

    from limbeck.model.checkpoints import save_model

    trained = (model.fresh_head, model.untrained)
    names = []
    for file in files:
        name = folder_name(file)
        model.load_state_dict(load_file(file))
        model.fresh_head, model.untrained = (True, "its training had not begun") if name == INITIAL else trained
        save_model(model, tokenizer, folder / name)
        names.append(name)
    return names


def epoch_folders(folder: str | Path) -> list[Path]:
    """Return the model folders ``epoch_*`` in a folder, in the order of their numbers.

    Args:
        folder: What ``finetune --keep every_epoch --out`` wrote, or another fine-tuning that saved every epoch.

    Raises:
        InputError: There is no such folder, or it has no folder ``epoch_*``.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    numbers = {path: re.fullmatch(r"epoch_(\d+)", path.name) for path in folder.iterdir() if path.is_dir()}
    epochs = sorted((int(match[1]), path) for path, match in numbers.items() if match is not None)
    if not epochs:
        raise InputError(f"{folder} has no folders epoch_1, epoch_2, …; 'finetune --keep every_epoch' writes them")
    return [path for _, path in epochs]


def read_kept_weights(
    folders: Sequence[Path], model: LimbeckForSequenceClassification, task: Task, to: Path
) -> list[Path]:
    """Open model folders of one shape and write their weights as files that a model of that shape loads.

    Args:
        folders: The model folders.
        model: Their weights should fit this one.
        task: Labels of the head.
        to: Folder of the files; those that are there already are not written again.

    Raises:
        InputError: A folder cannot be opened, has no head for the task, or holds another model.
    """
    from safetensors.torch import save_file

    from limbeck.model.checkpoints import open_model
    from limbeck.storage.atomic import replacing

    to.mkdir(parents=True, exist_ok=True)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    files = []
    for folder in folders:
        file = to / f"{folder.name}.safetensors"
        files.append(file)
        if file.is_file():
            continue
        opened, _ = open_model(folder, task=task, runtime="torch")
        state = cast("LimbeckForSequenceClassification", opened).state_dict()  # the runtime is torch
        weights = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        if {name: tensor.shape for name, tensor in weights.items()} != expected:
            raise InputError(f"{folder} holds another model ({opened.shape}) than the one to follow ({model.shape})")
        with replacing(file) as draft:
            save_file(weights, draft)
    return files


def with_epochs(teacher: Candidate, checkpoints: str | None, student: Candidate, scratch: Path | None) -> Candidate:
    """Return a teacher with the epochs that its student is to follow: the student's first weights, then one an epoch.

    Args:
        teacher: The fine-tuned teacher.
        checkpoints: Folder with model folders ``epoch_*`` and perhaps ``initial``; None takes what the teacher kept.
        student: What the epochs begin with where ``initial`` is missing.
        scratch: Where the weights are put.
    """
    from safetensors.torch import save_file

    if checkpoints is None:
        epochs = tuple(file for file in teacher.epoch_checkpoints if file.stem.startswith("epoch_"))
        return replace(teacher, epoch_checkpoints=epochs)
    folders, initial = epoch_folders(checkpoints), user_path(checkpoints) / INITIAL
    to = (scratch or process_folder()) / "waypoints"
    first = [initial] if initial.is_dir() else []
    files = read_kept_weights([*first, *folders], teacher.model, teacher.task, to)
    if not first:
        begun = to / f"{INITIAL}.safetensors"
        save_file({name: tensor.detach().contiguous() for name, tensor in student.model.state_dict().items()}, begun)
        files = [begun, *files]
    return replace(teacher, epoch_checkpoints=tuple(files))
