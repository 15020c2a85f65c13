"""Stop before compressing a teacher that is no better than the best constant answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from limbeck.core.measurement import Measurement
from limbeck.core.model import AnswerSource
from limbeck.core.task import Task
from limbeck.data.baseline import Baseline, Comparison, baseline, compare
from limbeck.engine.builder import CandidateBuilder
from limbeck.engine.run_log import RunLog
from limbeck.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.model import Runnable

ROWS = 2000  #: most validation rows to compare on; of a search, queries


class WeakTeacher(InputError):
    """The teacher was not shown to be better than the best constant answer."""


class TeacherCheck:
    """Stops a run before anything is made from a teacher that is no better than the best constant answer.

    Only recipes that end in a choice claim that what they choose is good. A teacher is compared once, and the result
    is kept in the store.
    """

    def __init__(self, builder: CandidateBuilder, log: RunLog, *, chooses: bool) -> None:
        """Begin without a verdict.

        Args:
            builder: Opens the teacher.
            log: Records the message.
            chooses: Whether the recipe ends in a choice.
        """
        self._builder, self._log = builder, log
        self._wanted = chooses and not builder.recipe.allow_weak_teacher and "validation" in builder.task.splits
        self._checked: set[str] = set()

    def check(self, key: str) -> None:
        """Check the teacher of a record, if it has one.

        Args:
            key: Key of the record.

        Raises:
            WeakTeacher: It was not shown to be better than the constant answer.
        """
        builder = self._builder
        teacher = builder.teacher(key)
        if not self._wanted or teacher is None or teacher in self._checked:
            return
        self._checked.add(teacher)
        given = builder.given.open().model if teacher == builder.given_key else None
        if given is not None and (lacking := given.lacks(builder.task, "validation")):
            self._log.note(f"{lacking}, so it is not compared with the constant answer")
            return

        if builder.task.only_score_of("validation") is not None:
            self._log.note("validation pairs all have one score, so the model is not compared with a constant answer")
            return

        def compare_once() -> dict[str, Any]:
            candidate = builder.open(teacher)
            size = builder.recipe.target.batch if given is None and candidate.model.int8 else 32
            comparison, constant = compare_teacher(candidate.model, candidate.tokenizer, builder.task, size)
            message = "" if comparison.better else weak_teacher_message(builder.task, comparison, constant.answer)
            return {"better": comparison.better, "message": message}

        verdict = builder.store.facts.arrays(f"teacher-{teacher}-{builder.task.fingerprint}", compare_once)
        if not bool(verdict["better"]):
            message = str(verdict["message"])
            self._log.note(message, kind="weak_teacher")
            raise WeakTeacher(message)


def compare_teacher(
    model: Runnable | AnswerSource, tokenizer: PreTrainedTokenizerBase | None, task: Task, batch_size: int = 32
) -> tuple[Comparison, Baseline]:
    """Compare a model with the constant answer on the same validation rows.

    Args:
        model: Anything with ``predict(batch)``, or a teacher that only gives answers.
        tokenizer: The model's, if it has one.
        task: A task with a validation split.
        batch_size: Texts answered together.

    Returns:
        The paired comparison, and the baseline.
    """
    from limbeck.data.answers import judgeable
    from limbeck.data.batching import encode, predict
    from limbeck.measure.quality import assess

    sample = task
    if not (isinstance(model, AnswerSource) and not model.identity):  # a file answers all rows at no cost
        sample = task.limit(validation=min(ROWS, len(task.split("validation"))))
    rows = sample.split("validation")
    if isinstance(model, AnswerSource):
        assessment = assess(sample, *judgeable(sample, model.answer(sample, "validation"), rows.labels))
    else:
        assert tokenizer is not None  # only a teacher that only gives answers has none
        encoded = encode(sample, "validation", tokenizer)
        assessment = assess(sample, predict(model, encoded, batch_size), encoded.labels, encoded.unseen)
    value, low, high = assessment.quality
    detail = {"metric": task.metric, **assessment.detail}
    fact = Measurement("quality", value, "1", low, high, n=len(rows), split="validation", detail=detail)
    constant = baseline(sample)
    return compare(fact, constant.quality["validation"]), constant


def weak_teacher_message(task: Task, comparison: Comparison, answer: str) -> str:
    """Describe both scores, what to try, and how to continue anyway.

    Args:
        task: The task.
        comparison: The teacher against the constant answer.
        answer: The constant answer, in words.
    """
    model, constant = comparison.model, comparison.constant

    def interval(fact: Measurement) -> str:
        return "" if fact.low is None or fact.high is None else f" [{fact.low:.3f}, {fact.high:.3f}]"

    weights = ", class_weights: balanced" if not task.task_kind.numeric else ""
    return (
        f"the teacher is not better than the constant answer, so nothing made from it would be meaningful: "
        f"{task.metric} {model.value:.3f}{interval(model)} against {constant.value:.3f} for {answer}, on {model.n:,} "
        f"validation rows (one-sided p = {comparison.p_value:.2g}). Train longer or faster (epochs, min_steps, "
        f"learning_rate{weights}), give more rows, or choose a metric that sees rare labels (macro_f1, "
        "balanced_accuracy, average_precision); to continue anyway, set allow_weak_teacher: true "
        "(--allow-weak-teacher)"
    )
