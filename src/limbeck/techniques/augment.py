"""Make more training texts of those there are: the candidate keeps its weights and gets a larger task.

References: Tang et al., 2019, arXiv:1903.12136 (``ngram``); Jiao et al., 2020, arXiv:1909.10351, section 3.2 and
Algorithm 1 (``tinybert``). Differs: no text of validation or test can come out; a teacher may judge every new text and
drop or relabel those whose label no longer holds; the candidates of a word are looked up once and all samples draw from
them; work is kept in chunks and goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from limbeck.augmentation.config import NGramConfig, SubstitutionConfig
from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group, values_of, without_effect
from limbeck.core.model import AnswersOnly
from limbeck.core.step import RunContext, StepInfo, Technique, problems_of, step
from limbeck.errors import InputError
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from pathlib import Path

    from limbeck.augmentation.pipeline import AugmentationPipeline
    from limbeck.augmentation.preparation import Prepared
    from limbeck.core.pieces import Piece, Result
    from limbeck.core.shape import Shape
    from limbeck.core.task_kind import TaskKind

SAMPLES_PER_SECOND = 20_000.0  # of n-gram samples on one core; rough


@step(
    StepInfo(
        "augment",
        label="augmented",
        version=3,
        needs={"torch"},
        reads={"seed", "teacher"},
        headless=True,
        keeps_model=True,
        keeps_shape=True,
        files=frozenset({"mlm", "vectors"}),
        neutral=frozenset({"workers"}),
        example={"n_iter": 3, "chunk_rows": 16},
    )
)
class Augment(Technique):
    """Add changed copies of the training texts to the task; the model stays as it is.

    ``ngram`` masks words and n-grams and swaps words of the same part of speech. ``tinybert`` replaces words by what a
    masked language model finds likely in their place (words of one piece) or by their nearest neighbors among word
    vectors (all others). Of pairs each text is changed by itself. Where words carry labels, words are replaced one by
    one, n-grams by a mask for each word. Originals stay, and a second augment step works on the originals again;
    of those that also stand in validation or test nothing is made. Without a tagger, words that should be swapped for
    one of their part of speech stay. The guard is off by default: it needs a teacher, and a student that imitates the
    teacher's answers learns most where these leave the gold label. Turn it on for training on labels.

    Attributes:
        method: How texts are changed.
        ngrams: The fields of 'ngram'.
        substitution: The fields of 'tinybert'.
        labels: New texts keep the label of their original, or get the teacher's answer.
        guard: What happens to a new text where the teacher is confident that the label no longer holds.
        guard_confidence: Probability from which the teacher counts as confident.
        chunk_rows: Texts that are worked on, and kept in case of an interruption, together.
        workers: Processes that change texts, unless the run has workers; the result does not depend on it.
    """

    method: Literal["ngram", "tinybert"] = "ngram"
    ngrams: NGramConfig = group(default=NGramConfig())
    substitution: SubstitutionConfig = group(default=SubstitutionConfig())
    labels: Literal["preserve", "teacher"] = "preserve"
    guard: Literal["off", "drop", "relabel"] = "off"
    guard_confidence: Annotated[float, Gt(0), Le(1)] = 0.9
    chunk_rows: Annotated[int, Ge(1), Le(1_000_000)] = 256
    workers: Annotated[int, Ge(1), Le(1_024)] = 1

    # chunk_rows is not neutral: kept chunks go by their numbers, and padding changes the last bits of what is nearest
    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        other, unused = ("tinybert", self.substitution) if self.method == "ngram" else ("ngram", self.ngrams)
        problems = without_effect(self, values_of(unused), f"with method: {self.method}, only with {other}")
        if self.labels == "teacher" and self.guard == "relabel":
            problems.append("labels: teacher gives the teacher's labels already; use guard: off or drop")
        return problems

    def idle_fields(self) -> dict[str, str]:
        """Return the arithmetic where no masked language model computes: keys have the value from before ``auto``."""
        return {} if self.substitution.mlm else {"mixed_precision": "no"}

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return why a teacher that only gives answers cannot judge new texts."""
        if teacher.reads_new_texts or not self.judged:
            return []
        return [f"new texts are read by the teacher, and '{teacher.source}' cannot answer them: {teacher.reason}"]

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return the fields that make no sense for the labels of a kind of task."""
        problems = {}
        if self.guard != "off" and kind.numeric:
            problems["guard"] = f"numbers have no confidence, got '{self.guard}' for them; use off"
        if self.ngrams.ngram == "keep" and kind.per_token:
            problems["ngram"] = "'keep' would take away words that carry labels; use mask"
        return problems

    @property
    def count(self) -> int:
        """New texts drawn for each text."""
        return self.ngrams.n_iter if self.method == "ngram" else self.substitution.samples

    @property
    def judged(self) -> bool:
        """Whether the teacher reads every new text."""
        return self.labels == "teacher" or self.guard != "off"

    def rows_after(self, rows: Mapping[str, int]) -> dict[str, int]:
        """Return the rows before deduplication; pairs give up to twice as many, because both of their texts change."""
        return {**rows, "train": rows.get("train", 0) * (1 + self.count)}

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: drawing, a masked copy for every second word, and the teacher's reading.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        from limbeck.train.config import forward_seconds

        texts, rule = rows.get("train", 0), self.substitution
        copies = texts * tokens / 2 / rule.positions_per_pass if rule.mlm else 0.0
        read = texts * self.count if self.judged else 0.0
        return texts * self.count / SAMPLES_PER_SECOND + forward_seconds(shape, copies + read, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with a larger task."""
        self.check(candidate, context)
        with temporary_folder() as folder:
            pipeline = self._pipeline(candidate, context, context.scratch or folder)
            pipeline.scratch.mkdir(parents=True, exist_ok=True)
            summary = f"method {self.method}, {self.count} samples per text, labels {self.labels}, guard {self.guard}"
            task = pipeline.run(title="Augmented texts", summary=summary)
        yield replace(candidate, task=task)

    def _pipeline(self, candidate: Candidate, context: RunContext, scratch: Path) -> AugmentationPipeline:
        from limbeck.augmentation.label_filter import LabelFilter
        from limbeck.augmentation.pieces import Elsewhere
        from limbeck.augmentation.pipeline import AugmentationPipeline
        from limbeck.augmentation.preparation import masking, substituting

        label_filter, mask, chunk_rows, workers = None, None, self.chunk_rows, self.workers
        if self.judged and context.teacher is not None:
            label_filter = LabelFilter(context.teacher.open, self.labels, self.guard, self.guard_confidence)
        prepare: Callable[[], Prepared] = partial(substituting, self.substitution, candidate, context)
        if self.method == "ngram":
            mask = candidate.tokenizer.mask_token
            prepare = partial(masking, self.ngrams, candidate, context, chunk_rows=chunk_rows, workers=workers)
        elsewhere, task = Elsewhere(context.spread) if context.spread is not None else None, candidate.task
        options = (scratch, label_filter, chunk_rows, workers, context.log, mask, elsewhere)
        return AugmentationPipeline(task, prepare, self.count, context.seed, *options)

    def work_on(
        self, pieces: Sequence[Piece], shared: Mapping[str, Any], candidate: Candidate, context: RunContext
    ) -> Iterator[Result]:
        """Yield tags, samples or reviews of rows."""
        from limbeck.augmentation.pieces import work_on
        from limbeck.augmentation.preparation import open_masked_model
        from limbeck.augmentation.transforms import Substitute

        ngram, other = self.ngrams.transform(candidate.tokenizer.mask_token or ""), self.substitution
        transform = ngram if self.method == "ngram" else Substitute(other.replace_probability)
        with temporary_folder() as folder:
            pipeline = self._pipeline(candidate, context, folder)
            yield from work_on(pieces, shared, pipeline, transform, partial(open_masked_model, other, candidate.task))

    def check(self, candidate: Candidate, context: RunContext) -> None:
        """Refuse what cannot work before any of it starts."""
        from limbeck.augmentation.pos_taggers import open_tagger

        if problems := problems_of(self):
            raise InputError(f"augment: {problems[0]}")
        task = candidate.task
        task.split("train")
        if self.judged and context.teacher is None:
            what = "labels: teacher" if self.labels == "teacher" else f"guard: {self.guard}"
            raise InputError(
                f"augment: {what} needs a teacher; put 'finetune' before it or name one with 'teacher: MODEL'"
            )
        for name, reason in self.kind_problems(task.task_kind).items():
            raise InputError(f"augment.{name}: {reason}")
        if self.method == "ngram" and candidate.tokenizer.mask_token is None:
            raise InputError("augment.method: the model's tokenizer has no mask token, which ngram needs; use tinybert")
        if self.ngrams.used_tagger:
            open_tagger(self.ngrams.used_tagger)
