"""Adapt a task to a model that already answers it, and check the order of the labels where it had to be assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.kinds import find
from limbeck.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable
    from limbeck.core.outputs import Match
    from limbeck.core.task import Task

TEXTS = 200
"""Texts that an assumed order is checked on."""

SURE, USEFUL = 1e-3, 1e-2
"""Largest p-values for claiming that another order is better, and that an order beats the most frequent label."""

Verdict = Literal["fits", "unclear", "wrong"]


@dataclass(frozen=True)
class OrderCheck:
    """How well an assumed order of the outputs fits the labels.

    ``accuracy`` and ``best`` are the fractions of right decisions with the assumed and the best order, ``constant``
    with only the most frequent label. ``outputs`` has the output of each label in the best order; ``texts`` is the
    number of texts.
    """

    verdict: Verdict
    accuracy: float
    best: float
    constant: float
    outputs: tuple[int, ...]
    texts: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values for storage."""
        return {**vars(self), "outputs": list(self.outputs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OrderCheck:
        """Inverse of :meth:`to_json`."""
        return cls(**{**data, "outputs": tuple(data["outputs"])})


@dataclass(frozen=True)
class Fitted:
    """A task as a model answers it.

    ``answers``: the model has a trained head for it, as far as is known. ``refusal`` says why it has not. ``notes`` are
    for the user.
    """

    task: Task
    answers: bool
    refusal: str = ""
    notes: tuple[str, ...] = ()


def fit_task(
    source: str | Path,
    task: Task,
    *,
    trained_next: bool = False,
    measure: Callable[[Task], OrderCheck] | None = None,
) -> Fitted:
    """Give a task the label names of a model that answers it, in the order of its outputs.

    Same names in another order or case, and a part of the model's labels, become the model's own list. Meaningless
    names (``LABEL_0``, ``0``) on either side are matched by position; that is noted, and checked on texts.

    Args:
        source: Folder or name of the model.
        task: The task.
        trained_next: Whether the head is trained before it answers; an order that does not fit is then no error.
        measure: Checks an assumed order; :func:`measure_order` unless given.

    Returns:
        The task, adapted if the model answers it, and what to report.

    Raises:
        InputError: Another order of the labels fits far better.
    """
    from limbeck.model.checkpoints import peek_outputs

    spec = peek_outputs(source)
    match = spec.match(task.kind, task.label_names)
    if not match:
        return Fitted(task, False, match.refusal)
    if task.task_kind.numeric:
        return Fitted(task, True)
    adapted = _adapt(task, match)
    notes = _changes(task, adapted, spec.labels, source)
    if not match.assumed:
        return Fitted(adapted, True, notes=notes)
    order = (measure or (lambda given: measure_order(source, given)))(adapted)
    assumption = _assumption(source, spec.labels, task.label_names, adapted, match)
    if order.verdict == "wrong":
        better = f"{assumption}, but {_better(order, adapted, task, match)}"
        if not trained_next:
            raise InputError(better)
        return Fitted(task, False, better, (f"{better}; now it is trained anew in the assumed order",))
    if order.verdict == "fits":
        return Fitted(
            adapted, True, notes=(*notes, f"{assumption}: {order.accuracy:.1%} of {order.texts} texts are right")
        )
    unclear = (
        f"it answers {order.accuracy:.1%} of {order.texts} texts right, the most frequent label {order.constant:.1%}"
    )
    if trained_next:  # the names of other outputs would be wrong ones
        return Fitted(task, False, unclear, (f"'{source}' is not known to answer this task: {unclear}",))
    return Fitted(adapted, False, unclear, (*notes, f"{assumption}; no order is confirmed: {unclear}"))


def _adapt(task: Task, match: Match) -> Task:
    """Give the task the model's names and order, as far as its metric leaves the order free."""
    names = list(match.names)
    if task.metric == "token_f1" and task.label_names[0] == "O":  # the metric leaves out the first label
        names.insert(0, names.pop(match.outputs[0]))
    elif task.metric == "f1" and len(names) == 2:  # the second label is the positive one
        names = [match.names[output] for output in match.outputs]
    return task.relabel(names, [names.index(match.names[output]) for output in match.outputs])


def _changes(task: Task, adapted: Task, outputs: Sequence[str], source: str | Path) -> tuple[str, ...]:
    """Describe the changes of the task's label names and of the order of the outputs."""
    from limbeck.core.label_names import silent

    notes, turned = [], not silent(outputs) and tuple(outputs) != adapted.label_names
    if adapted.label_names != task.label_names:
        order = "" if turned or silent(outputs) else ", in its order"
        notes.append(
            f"labels are those of '{source}'{order}: {', '.join(adapted.label_names)} "
            f"(the data have {', '.join(task.label_names)})"
        )
    if turned:
        notes.append(
            f"the outputs of '{source}' are put into another order for the metric {task.metric}: "
            f"{', '.join(adapted.label_names)} instead of {', '.join(outputs)}"
        )
    return tuple(notes)


def _assumption(source: str | Path, outputs: Sequence[str], labels: Sequence[str], adapted: Task, match: Match) -> str:
    pairs = ", ".join(f"{outputs[output]} = {label}" for output, label in zip(match.outputs, labels, strict=True))
    return f"'{source}' and the data name the labels differently, so their order is assumed ({pairs})"


def _better(order: OrderCheck, adapted: Task, task: Task, match: Match) -> str:
    """Explain what is wrong with the assumed order, and how to give the right one."""
    names = {match.names[output]: label for output, label in zip(match.outputs, task.label_names, strict=True)}
    labels = [names[label] for label in adapted.label_names]  # of the data, in the assumed order of the outputs
    right = [""] * len(labels)
    for label, output in zip(labels, order.outputs, strict=True):
        right[output] = label
    return (
        f"another order fits far better: {order.best:.1%} of {order.texts} texts instead of {order.accuracy:.1%}. "
        f"If so, give the task label_names: [{', '.join(right)}]"
    )


def measure_order(source: str | Path, task: Task) -> OrderCheck:
    """Open a model and check the order of its outputs on texts of a task whose label names it was given."""
    from limbeck.model.checkpoints import open_model, peek

    fitting = replace(task, max_length=min(task.max_length, peek(source)["max_length"]))
    model, tokenizer = open_model(source, task=fitting)
    return check_order(model, tokenizer, fitting)


def check_order(model: Runnable, tokenizer: PreTrainedTokenizerBase, task: Task) -> OrderCheck:
    """Compare the order of a model's outputs with the order that fits the labels best.

    Args:
        model: An opened model with an output for each label of the task.
        tokenizer: Its tokenizer.
        task: The task; up to ``TEXTS`` of its validation texts are answered, or of its largest split if those are few.

    Returns:
        'wrong' where another order is better than the assumed one and than the most frequent label, beyond noise, and
        the assumed one is not; 'fits' where the assumed one is better than the most frequent label; else 'unclear'.
    """
    from limbeck.data.batching import encode, predict

    size = {name: len(split) for name, split in task.splits.items()}
    split = "validation" if size.get("validation", 0) >= TEXTS else max(size, key=size.__getitem__)
    few = task.limit(**{split: min(TEXTS, len(task.split(split)))})
    few = replace(few, splits={split: few.splits[split]})
    encoded = encode(few, split, tokenizer)
    return compare_orders(task.kind, predict(model, encoded), encoded.labels, len(task.label_names))


def compare_orders(
    kind: str, logits: Sequence[np.ndarray] | np.ndarray, labels: Sequence[Any], count: int
) -> OrderCheck:
    """Compare the order of outputs with the order that fits the labels best, see :func:`check_order`.

    Args:
        kind: Kind of the task.
        logits: Of each text [labels], or for tokens [seq, labels].
        labels: The label of each text, or its labels.
        count: Number of labels.
    """
    return judge_order(*find(kind).confusion(logits, labels, count))


def judge_order(tables: np.ndarray, constant: np.ndarray, totals: np.ndarray) -> OrderCheck:
    """Test the order of outputs by sign tests over texts.

    With more than two labels the best order is searched on every second text and tested on the others, so that the
    search is not mistaken for evidence.

    Args:
        tables: Decisions, how often each output answers where each label is true [text, label, output].
        constant: Decisions that the most frequent label gets right [text].
        totals: Decisions to be made [text].
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    halves = tables.shape[1] > 2 and len(tables) > 1
    seek, rest = (slice(0, None, 2), slice(1, None, 2)) if halves else (slice(None), slice(None))
    _, columns = linear_sum_assignment(tables[seek].sum(0), maximize=True)
    identity = np.arange(tables.shape[1])
    right = {
        "assumed": tables[rest][:, identity, identity].sum(1),
        "best": tables[rest][:, identity, columns].sum(1),
        "constant": constant[rest],
    }
    shares = {name: float(row.sum() / max(totals[rest].sum(), 1)) for name, row in right.items()}
    verdict: Verdict = "unclear"
    if sign_test(right["assumed"], right["constant"]) < USEFUL:
        verdict = "fits"
    elif sign_test(right["best"], right["assumed"]) < SURE and sign_test(right["best"], right["constant"]) < USEFUL:
        verdict = "wrong"
    outputs = tuple(int(column) for column in columns)
    return OrderCheck(verdict, shares["assumed"], shares["best"], shares["constant"], outputs, len(right["best"]))


def sign_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the exact one-sided p-value of a sign test that ``first`` [text] beats ``second`` [text].

    >>> import numpy as np
    >>> sign_test(np.ones(10), np.zeros(10))
    0.0009765625
    """
    from scipy.stats import binom

    ahead, behind = int((first > second).sum()), int((first < second).sum())
    return float(binom.sf(ahead - 1, ahead + behind, 0.5))
