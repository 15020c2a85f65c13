"""What the functions of ``functional.py`` share: models and data in any form as a candidate, and steps on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import KINDS
from limbeck.core.metrics import default_label
from limbeck.core.step import RunContext, Technique
from limbeck.core.target import Target
from limbeck.core.task import Split, Task
from limbeck.data.given import names_task
from limbeck.engine.tasks.loading import as_task, load_judged
from limbeck.errors import InputError
from limbeck.recipe.validation import check_values, read
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from limbeck.core.model import AnswerSource
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel
    from limbeck.teachers.function import TeacherFunction

    Model: TypeAlias = PreTrainedModel | OnnxModel | str | Path
    Data: TypeAlias = Any  # a Task, a path, a mapping, a data set, (texts, labels), or texts: see data/given.py

TEXTS = 200
"""Texts of the validation split where ``data`` has none: enough for checks."""

Log = Callable[..., None]
T = TypeVar("T", bound=Technique)


def is_texts(data: Data) -> bool:
    """Tell whether the data are texts alone, without labels."""
    return isinstance(data, Sequence) and not isinstance(data, str) and all(isinstance(text, str) for text in data)


def read_data(data: Data) -> Sequence[str] | Task:
    """Read the rows, once; texts alone stay texts."""
    return data if is_texts(data) else as_task(data)


def training_fields(data: Sequence[str] | Task, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a training on these data: without a validation split, the last weights are kept."""
    splits = data.splits if isinstance(data, Task) else ()
    return dict(fields) if "validation" in splits else {"evaluations_per_epoch": 0, **fields}


def judged(data: Data, split: str | None) -> tuple[Task, str]:
    """Return the task and the split to score: every row, where the data are not split."""
    if names_task(data):
        return load_judged(data, split)
    if not isinstance(data, (Task, Mapping)):
        task = as_task({split or "test": data}, evaluation=True)
    else:
        task = as_task(data, evaluation=isinstance(data, Mapping) and "train" not in data)
    return task, split or ("test" if "test" in task.splits else list(task.splits)[-1])


def for_validation(data: Data) -> Data:
    """Return data of which every row serves for validation, where they are not split."""
    split = names_task(data) or isinstance(data, (Task, Mapping)) or is_texts(data)
    return data if split else {"train": data, "validation": data}


def checked_target(**fields: Any) -> Target:
    """Return the target with these fields, checked as that of a recipe."""
    target = Target(**fields)
    check_values(target)
    return target


def make_step(cls: type[T], fields: Mapping[str, Any]) -> T:
    """Return the step with these fields, checked as those of a recipe."""
    step, problems = read(cls, fields, cls.info.name)
    if step is None:
        raise InputError("; ".join(map(str, problems)))
    return step


def checked_options(cls: type[Technique], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a technique, with these fields checked as those of a recipe."""
    return dict(vars(make_step(cls, fields)))


def check_suits(step: Technique, task: Task) -> None:
    """Refuse options of a step that make no sense for a task, as those of a recipe are.

    Args:
        step: The step.
        task: The task.

    Raises:
        InputError: Names the options, with the reasons.
    """
    if problems := [f"{name or step.info.name}: {reason}" for name, reason in step.task_problems(task).items()]:
        raise InputError("; ".join(problems))


def trained_model(step: Technique, candidate: Candidate, context: RunContext) -> LimbeckForSequenceClassification:
    """Return the model that a step makes of a candidate, in eval mode.

    Args:
        step: The technique.
        candidate: The candidate, which it may change.
        context: Services of the step.
    """
    check_suits(step, candidate.task)
    with temporary_folder() as scratch:
        (result,) = step.apply(candidate, replace(context, scratch=scratch))
        return cast("LimbeckForSequenceClassification", result.model.eval())


def open_exported(folder: str | Path) -> OnnxModel:
    """Open the exported model in a user's folder."""
    from limbeck.model.checkpoints import open_model

    model, _ = open_model(folder)
    return cast("OnnxModel", model)


@contextlib.contextmanager
def open_candidate(
    model: Model, tokenizer: PreTrainedTokenizerBase | None, data: Data, *, fill: bool = True
) -> Iterator[Candidate]:
    """Open a private copy of a model beside its data.

    Args:
        model: A model in memory, or where it lies.
        tokenizer: Its tokenizer.
        data: Texts, or what :func:`as_task` takes.
        fill: Whether missing train and validation splits are filled with what is there.

    Yields:
        The candidate; its folder is removed afterwards.
    """
    from limbeck.engine.tasks.task_adaptation import fit_length
    from limbeck.measure.label_order import fit_task
    from limbeck.model.checkpoints import open_model

    with contextlib.ExitStack() as stack:
        if isinstance(model, (str, Path)):
            source = str(model)
        else:
            saved = stack.enter_context(temporary_folder())
            _save(model, tokenizer, saved)
            source = str(saved)
        rows = read_data(data)
        task = rows if isinstance(rows, Task) else _answered(source, rows)
        fitted = fit_task(source, fit_length(task, source))
        if not fitted.answers:
            raise InputError(f"the model does not answer this task: {fitted.refusal}")
        opened, own = open_model(source, task=fitted.task)
        folder = Path(source) if Path(source).is_dir() else None
        task = _filled(fitted.task) if fill else fitted.task
        yield Candidate(opened, own, task, folder)


@contextlib.contextmanager
def open_sides(
    student: Model,
    teacher: Model | TeacherFunction,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Sequence[str] | Task,
) -> Iterator[tuple[Candidate, Candidate]]:
    """Open a student and its teacher beside their data.

    Args:
        student: The model to train.
        teacher: The model, file of scores or function to imitate.
        tokenizer: The tokenizer of both.
        data: Texts, or a task.

    Yields:
        The student and the teacher, with the same task; for texts alone the labels are the teacher's answers.
    """
    from limbeck.teachers.function import FunctionTeacher
    from limbeck.teachers.opening import check_answers, describe, open_teacher

    with contextlib.ExitStack() as stack:
        source = teacher if isinstance(teacher, (str, Path)) else None
        if source is None and hasattr(teacher, "save_pretrained"):
            source = stack.enter_context(temporary_folder())
            _save(cast("PreTrainedModel", teacher), tokenizer, source)
        function = source is None and callable(teacher)
        if not function and (source is None or describe(str(source)) is None):
            guide = stack.enter_context(open_candidate(cast("Model", teacher), tokenizer, data))
            yield stack.enter_context(open_candidate(student, tokenizer, guide.task)), guide
            return
        candidate = stack.enter_context(open_candidate(student, tokenizer, data))
        if function:
            answers = FunctionTeacher(cast("TeacherFunction", teacher), candidate.task)
            check_answers(answers.name, answers, candidate.task)
            guide = Candidate(answers, None, candidate.task)
        else:
            guide = open_teacher(str(source), candidate.task)
        if not isinstance(data, Task):
            candidate = replace(candidate, task=_labeled(candidate.task, guide.model))
        yield candidate, replace(guide, task=candidate.task)


def _labeled(task: Task, source: AnswerSource) -> Task:
    """Return a task whose labels are the answers of a teacher; words that it did not see have the default label."""
    import numpy as np

    kind = task.task_kind

    def labels_of(split: str) -> tuple[Any, ...]:
        logits = source.answer(task, split)
        if kind.grouped:
            rows = zip(logits, task.split(split).labels, strict=True)
            return tuple(kind.review(row, label, 1.0)[0] for row, label in rows)
        if not kind.per_token:
            return tuple(label.tolist() for label in kind.decode(logits))
        seen = [~np.isnan(row).any(axis=-1) for row in logits]
        other = default_label(task.label_names)
        return tuple(np.where(mask, kind.decode(row), other).tolist() for mask, row in zip(seen, logits, strict=True))

    labels = {name: labels_of(name) for name in task.splits}
    splits = {name: replace(rows, labels=tuple(map(_frozen, labels[name]))) for name, rows in task.splits.items()}
    return replace(task, splits=splits)


def _frozen(label: Any) -> Any:  # a label of any kind
    return tuple(label) if isinstance(label, list) else label


def _save(model: PreTrainedModel | OnnxModel, tokenizer: PreTrainedTokenizerBase | None, folder: Path) -> None:
    """Write a model in memory to a folder."""
    from limbeck.model._transformers import quiet
    from limbeck.model.checkpoints import save_model
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.onnx.onnx_model import OnnxModel

    if tokenizer is None:
        raise InputError("tokenizer: a model in memory needs its tokenizer; None is for folders and hub names")
    if isinstance(model, (LimbeckForSequenceClassification, OnnxModel)):
        save_model(model, tokenizer, folder)
        return
    if not hasattr(model, "save_pretrained"):
        raise InputError(f"model: expected a model of transformers or limbeck, or a path, got {type(model).__name__}")
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _answered(source: str, texts: Sequence[str]) -> Task:
    """Return texts as a task whose labels are the model's own answers."""
    from limbeck.engine.predict import answer
    from limbeck.model.checkpoints import peek_outputs

    if not texts:
        raise InputError("data: there is no text")
    spec = peek_outputs(source)
    rows = answer(source, texts)
    if spec.kind not in KINDS or KINDS[spec.kind].grouped:
        raise InputError("data: the model scores pairs; give (texts, pairs, labels)")
    kind = KINDS[spec.kind]
    inputs = tuple(tuple(text.split()) if kind.per_token else text for text in texts)
    labels = tuple(kind.label_of(row, spec.labels) for row in rows)
    return Task("texts", spec.kind, {"train": Split(inputs, labels)}, spec.labels, kind.fidelity_metric(spec.labels))


def _filled(task: Task) -> Task:
    """Return a task with train and validation splits: steps look at both, and one list of texts serves for both."""
    splits = dict(task.splits)
    first = next(iter(splits.values()))
    splits.setdefault("train", first)
    splits.setdefault("validation", splits["train"])
    filled = replace(task, splits=splits)
    return filled if "validation" in task.splits else filled.limit(validation=TEXTS)
