"""The techniques whose result is an ONNX folder, as functions; ``functional.py`` has the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck._functional import (
    check_suits,
    checked_options,
    for_validation,
    make_step,
    open_candidate,
    open_exported,
)
from limbeck.core.paths import user_path
from limbeck.core.step import RunContext, discard
from limbeck.errors import InputError
from limbeck.storage.destination import check_destination, check_outside, whole_folder
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck._functional import Data, Log, Model
    from limbeck.model.onnx.onnx_model import OnnxModel


def cascade(
    small: OnnxModel | str | Path,
    large: OnnxModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    folder: str | Path,
    *,
    max_changed: float = 1.0,
    log: Log | None = None,
    **options: Any,
) -> OnnxModel:
    """Let a smaller exported model answer what it is sure of, and a larger one the rest, in one ONNX graph.

    See :class:`limbeck.techniques.cascade.Cascade`.

    Args:
        small: The model that every text goes to.
        large: The model of the texts that the smaller one is not sure of; it reads the same tokens.
        tokenizer: That of models in memory; folders and hub names are read with their own, whatever is given here.
        data: Texts that neither was trained on; the rule is fitted on their validation split, or on all rows where
            ``data`` is one list of them.
        folder: New or empty folder, or an earlier result, which is replaced: the graph, configuration and tokenizer.
        max_changed: Largest share of answers that may differ from the larger model's, in per cent; it is shown to hold
            with 95 % confidence.
        log: Called with each message.
        **options: Other fields of the step: ``criterion``.

    Returns:
        The cascade.

    Raises:
        InputError: A model is not exported, they have other labels or read different tokens, or no rule is shown to
            hold.
    """
    from limbeck.measure.cascades import check_labels
    from limbeck.model.checkpoints import save_model
    from limbeck.techniques import cascade as pairs

    check_labels(_labels("small", small), _labels("large", large))
    step = make_step(pairs.Cascade, {"max_changed": max_changed, **options})
    _check_folder(folder, small, large)
    with (
        open_candidate(small, tokenizer, for_validation(data), fill=False) as first,
        open_candidate(large, tokenizer, first.task, fill=False) as last,
    ):
        check_suits(step, last.task)
        splits = {"validation": next(iter(last.task.splits.values())), **last.task.splits}
        task = replace(last.task, splits=splits)
        first, last = (replace(each, task=task, folder=None) for each in (first, last))  # answers are not kept
        with whole_folder(Path(folder)) as draft:
            context = RunContext(log=log or discard)
            combined, _ = pairs.cascade(first, last, draft, step.max_changed, step.criterion, context)
            save_model(combined, last.tokenizer, draft)
    return open_exported(folder)


def _check_folder(folder: str | Path, *models: Any) -> None:
    """Refuse a folder with anything but an earlier result, which is replaced whole, and the models' own folders.

    Args:
        folder: The folder that will be written.
        *models: What is read; only folders matter.

    Raises:
        InputError: The folder cannot be used.
    """
    from limbeck.model.layout import is_exported
    from limbeck.model.onnx.onnx_model import OnnxModel

    path = user_path(Path(folder))
    sources = [model.folder if isinstance(model, OnnxModel) else model for model in models]
    check_outside(path, (source for source in sources if isinstance(source, (str, Path))), "folder")
    check_destination(path, "folder")
    if path.is_dir() and any(path.iterdir()) and not is_exported(path):
        content = ", ".join(sorted(entry.name for entry in path.iterdir())[:3])
        raise InputError(
            f"folder {folder} is neither empty nor an exported model (it has {content}); name a new folder, "
            f"for example {folder}-onnx"
        )


def _labels(name: str, model: OnnxModel | str | Path) -> tuple[str, ...]:
    """Return the labels of an exported model in the order of its outputs.

    Args:
        name: Name of the argument in errors.
        model: The model.

    Raises:
        InputError: It is not exported.
    """
    from limbeck.core.label_names import read_labels
    from limbeck.model.checkpoints import peek
    from limbeck.model.onnx.onnx_model import OnnxModel

    if isinstance(model, OnnxModel):
        return read_labels(model.config, model.folder)
    if isinstance(model, (str, Path)) and (description := peek(model))["runtime"] != "torch":
        labels: tuple[str, ...] = description["labels"]
        return labels
    raise InputError(f"cascade: {name} is a torch model; export or quantize it first")


def export(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    folder: str | Path,
    *,
    fused: bool = True,
    log: Log | None = None,
    **options: Any,
) -> OnnxModel:
    """Write a model as ONNX, and check that it answers as before; see :class:`limbeck.techniques.export.Export`.

    Args:
        model: The model.
        tokenizer: That of a model in memory; a folder or hub name is read with its own, whatever is given here.
        data: Texts to compare the answers on.
        folder: New or empty folder, or an earlier result, which is replaced: ``onnx/model.onnx``, configuration,
            tokenizer and the torch weights.
        fused: Use ONNX Runtime's fused operators; without, standard ONNX alone, for other runtimes.
        log: Called with each message.
        **options: Other fields of the step: ``parity_tolerance``, ``parity_texts``.

    Returns:
        The exported model.
    """
    from limbeck.model.checkpoints import save_model
    from limbeck.techniques import export as onnx

    fields = checked_options(onnx.Export, {"fused": fused, **options})
    _check_folder(folder, model)
    with open_candidate(model, tokenizer, data) as candidate, whole_folder(Path(folder)) as draft:
        own = candidate.tokenizer
        exported = onnx.export(candidate.model, own, candidate.task, draft, **fields, log=log or discard)
        save_model(exported, own, draft)  # again: the check has set the length at which the tokenizer cuts texts
    return open_exported(folder)


def quantize(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    folder: str | Path,
    *,
    mode: Literal["dynamic", "static"] = "dynamic",
    fused: bool = True,
    log: Log | None = None,
    **options: Any,
) -> OnnxModel:
    """Write a model as ONNX in INT8; see :class:`limbeck.techniques.quantize.Quantize`.

    Args:
        model: A torch model, which is exported first, or an exported one.
        tokenizer: That of a model in memory; a folder or hub name is read with its own, whatever is given here.
        data: Texts for calibration and for the check of the export.
        folder: New or empty folder, or an earlier result, which is replaced: ``onnx/model_quantized.onnx``,
            configuration, tokenizer and the torch weights.
        mode: Ranges of activations: from each input (dynamic), or from the texts (static).
        fused: Use ONNX Runtime's fused operators; OpenVINO needs False, and mode 'static'.
        log: Called with each message.
        **options: Other fields of the step: ``smooth``, ``max_drop`` (points of the metric on labeled data), ...

    Returns:
        The INT8 model.
    """
    from limbeck.techniques import export as onnx
    from limbeck.techniques import quantize as int8

    fields, log = checked_options(int8.Quantize, {"mode": mode, **options}), log or discard
    _check_folder(folder, model)
    with (
        open_candidate(model, tokenizer, data) as candidate,
        temporary_folder() as scratch,
        whole_folder(Path(folder)) as draft,
    ):
        exported, task = candidate.model, candidate.task
        if exported.runtime == "torch":
            exported = onnx.export(exported, candidate.tokenizer, task, scratch, fused=fused, log=log)
        int8.quantize(exported, candidate.tokenizer, task, draft, **fields, log=log).close()
    return open_exported(folder)
