"""Make more training texts of those there are: the candidate keeps its weights and gets a larger task.

References: Tang et al., 2019, arXiv:1903.12136 (``ngram``); Jiao et al., 2020, arXiv:1909.10351, section 3.2 and
Algorithm 1 (``tinybert``). Differs: no text of validation or test can come out; a teacher may judge every new text and
drop or relabel those whose label no longer holds; the candidates of a word are looked up once and all samples draw from
them; work is kept in chunks and goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.core.candidate import Candidate
from limbeck.core.model import AnswersOnly
from limbeck.core.paths import user_path
from limbeck.core.step import RunContext, StepInfo, Technique, step
from limbeck.errors import InputError, MissingExtra, UnsupportedModel
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from limbeck.augmentation.preparation import Annotate
    from limbeck.augmentation.transforms import Transform
    from limbeck.core.shape import Shape

SAMPLES_PER_SECOND = 20_000.0  # of n-gram samples on one core; rough
SHARES = ("mask_probability", "part_of_speech_probability", "ngram_probability")
NGRAM_ONLY = (*SHARES, "max_ng", "n_iter", "ngram", "tagger")
TINYBERT_ONLY = ("mlm", "vectors", "replace_probability", "top_k", "samples", "positions_per_pass", "mixed_precision")


@step(
    StepInfo(
        "augment",
        label="augmented",
        version=2,
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
    masked language model finds likely in their place (words of one piece) or by their nearest neighbours among word
    vectors (all others). Of pairs each text is changed by itself. Where words carry labels, words are replaced one by
    one, n-grams by a mask for each word. Originals stay, and a second augment step works on the originals again;
    of those that also stand in validation or test nothing is made.

    Without a tagger, words that should be swapped for one of their part of speech stay. The guard is off by default:
    it needs a teacher, and a student that imitates the teacher's answers learns most where these leave the gold label.
    Turn it on for training on labels.

    Attributes:
        method: How texts are changed.
        mask_probability: Share of words that are masked (ngram).
        part_of_speech_probability: Share of words swapped for one of the same part of speech (ngram).
        ngram_probability: Share of new texts in which an n-gram is masked as well (ngram).
        max_ng: Most words in an n-gram (ngram).
        n_iter: New texts for each text, before duplicates go (ngram).
        ngram: The n-gram is masked, or all other words go, as Tang et al. have it (ngram).
        tagger: Who finds parts of speech: 'nltk', 'spacy' or 'spacy:PIPELINE' (ngram).
        mlm: A masked language model, as a folder or hub name; without, word vectors alone (tinybert).
        vectors: A text file of word vectors, such as GloVe's; without, the model's input embeddings (tinybert).
        replace_probability: Chance of each word to be replaced (tinybert).
        top_k: Candidates for each word (tinybert).
        samples: New texts for each text, before duplicates go; the paper has 20, and 10 for large tasks (tinybert).
        positions_per_pass: Words of a text that are masked at once; 1 is the paper's, more is faster (tinybert).
        mixed_precision: Arithmetic of the masked language model: float32 (no) or bfloat16; auto times both and takes
            the faster if the answers are the same (tinybert).
        labels: New texts keep the label of their original, or get the teacher's answer.
        guard: What happens to a new text where the teacher is confident that the label no longer holds.
        guard_confidence: Probability from which the teacher counts as confident.
        chunk_rows: Texts that are worked on, and kept in case of an interruption, together.
        workers: Processes that change texts; the result does not depend on it.
    """

    method: Literal["ngram", "tinybert"] = "ngram"
    mask_probability: Annotated[float, Ge(0), Le(1)] = 0.1
    part_of_speech_probability: Annotated[float, Ge(0), Le(1)] = 0.1
    ngram_probability: Annotated[float, Ge(0), Le(1)] = 0.25
    max_ng: Annotated[int, Ge(1), Le(1_000)] = 5
    n_iter: Annotated[int, Ge(1), Le(100_000)] = 20
    ngram: Literal["mask", "keep"] = "mask"
    tagger: str | None = None
    mlm: str | None = None
    vectors: str | None = None
    replace_probability: Annotated[float, Gt(0), Le(1)] = 0.4
    top_k: Annotated[int, Ge(1), Le(100_000)] = 15
    samples: Annotated[int, Ge(1)] = 20
    positions_per_pass: Annotated[int, Ge(1), Le(1_000)] = 1
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    labels: Literal["preserve", "teacher"] = "preserve"
    guard: Literal["off", "drop", "relabel"] = "off"
    guard_confidence: Annotated[float, Gt(0), Le(1)] = 0.9
    chunk_rows: Annotated[int, Ge(1), Le(1_000_000)] = 256
    workers: Annotated[int, Ge(1), Le(1_024)] = 1

    # not chunk_rows: kept chunks are found by their numbers, and batches of a model that differ in padding may differ
    # in the last bits, which can change what is nearest
    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        from limbeck.augmentation.pos_taggers import check_tagger

        problems = []
        others = TINYBERT_ONLY if self.method == "ngram" else NGRAM_ONLY
        foreign = [name for name in others if getattr(self, name) != getattr(type(self), name)]
        if foreign:
            other = "tinybert" if self.method == "ngram" else "ngram"
            problems.append(f"{', '.join(foreign)}: for method: {other}, got method: {self.method}")
        if self.mask_probability + self.part_of_speech_probability > 1:
            problems.append("mask_probability and part_of_speech_probability: should add up to at most 1")
        if self.labels == "teacher" and self.guard == "relabel":
            problems.append("labels: teacher gives the teacher's labels already; use guard: off or drop")
        if self.positions_per_pass > 1 and self.mlm is None:
            problems.append("positions_per_pass: is for a masked language model; name one with mlm")
        try:
            check_tagger(self.tagger or "nltk")
        except InputError as error:
            problems.append(f"tagger: {error}")
        return problems

    def idle_fields(self) -> dict[str, str]:
        """Return the arithmetic where no masked language model computes: keys have the value from before ``auto``."""
        return {} if self.mlm else {"mixed_precision": "no"}

    def file_problems(self) -> list[str]:
        """Return the problems of the files and the library that the fields name; the hub is not contacted."""
        from limbeck.augmentation.pos_taggers import EXTRAS, check_installed
        from limbeck.data.readers import missing_file
        from limbeck.model.checkpoints import peek_here

        problems = []
        path = user_path(self.vectors) if self.vectors else None
        if path is not None and not path.is_file():
            problems.append(f"vectors: {missing_file(path)}")
        try:
            if self.mlm is not None:
                peek_here(self.mlm)
        except UnsupportedModel:
            pass  # transformers opens more families than ours
        except InputError as error:
            problems.append(f"mlm: {error}")
        try:
            if self.tagger and self.tagger.partition(":")[0] in EXTRAS and self.part_of_speech_probability:
                check_installed(self.tagger)
        except MissingExtra as error:
            problems.append(f"tagger: {error}")
        return problems

    def teacher_problems(self, teacher: AnswersOnly) -> list[str]:
        """Return why a teacher that gives answers alone cannot judge new texts."""
        if teacher.reads_new_texts or not self.judged:
            return []
        return [f"new texts are read by the teacher, and '{teacher.source}' cannot answer them: {teacher.reason}"]

    @property
    def count(self) -> int:
        """New texts drawn for each text."""
        return self.n_iter if self.method == "ngram" else self.samples

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

        texts = rows.get("train", 0)
        copies = texts * tokens / 2 / self.positions_per_pass if self.mlm else 0.0
        read = texts * self.count if self.judged else 0.0
        return texts * self.count / SAMPLES_PER_SECOND + forward_seconds(shape, copies + read, tokens)

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with a larger task."""
        from limbeck.augmentation.label_filter import LabelFilter
        from limbeck.augmentation.pipeline import AugmentationPipeline

        self.check(candidate, context)
        label_filter = None
        if self.judged:
            assert context.teacher is not None
            label_filter = LabelFilter(context.teacher.open, self.labels, self.guard, self.guard_confidence)
        prepare = self._ngrams if self.method == "ngram" else self._substitutes
        with temporary_folder() as folder:
            pipeline = AugmentationPipeline(
                candidate.task,
                partial(prepare, candidate, context),
                self.count,
                context.seed,
                context.scratch or folder,
                label_filter,
                self.chunk_rows,
                self.workers,
                context.log,
                candidate.tokenizer.mask_token if self.method == "ngram" else None,
            )
            pipeline.scratch.mkdir(parents=True, exist_ok=True)
            summary = f"method {self.method}, {self.count} samples a text, labels {self.labels}, guard {self.guard}"
            task = pipeline.run(title="Augmented texts", summary=summary)
        yield replace(candidate, task=task)

    def check(self, candidate: Candidate, context: RunContext) -> None:
        """Refuse what cannot work before any of it starts."""
        from limbeck.augmentation.pos_taggers import open_tagger

        if problems := self.problems():
            raise InputError(f"augment: {problems[0]}")
        task = candidate.task
        task.split("train")
        if self.judged and context.teacher is None:
            what = "labels: teacher" if self.labels == "teacher" else f"guard: {self.guard}"
            raise InputError(
                f"augment: {what} needs a teacher; put 'finetune' before it or name one with 'teacher: MODEL'"
            )
        if self.guard != "off" and task.kind == "regression":
            raise InputError(f"augment.guard: numbers have no confidence, got '{self.guard}' for them; use off")
        if self.ngram == "keep" and task.kind == "tokens":
            raise InputError("augment.ngram: 'keep' would take away words that carry labels; use mask")
        if self.method == "ngram" and candidate.tokenizer.mask_token is None:
            raise InputError("augment.method: the model's tokenizer has no mask token, which ngram needs; use tinybert")
        if self.tagger is not None and self.part_of_speech_probability:
            open_tagger(self.tagger)

    def _ngrams(self, candidate: Candidate, context: RunContext) -> tuple[Transform, Annotate]:
        """Return the transform that samples n-grams, and what tags the parts of speech of rows."""
        from limbeck.augmentation.preparation import tagged
        from limbeck.augmentation.transforms import NGram

        shares = (self.mask_probability, self.part_of_speech_probability, self.ngram_probability)
        rule = NGram(*shares, self.max_ng, self.ngram, candidate.tokenizer.mask_token)
        if self.part_of_speech_probability and self.tagger is None:
            context.log("no tagger: words that would be swapped for one of their part of speech stay")
        tagger = self.tagger if self.part_of_speech_probability else None
        return tagged(rule, candidate.task, tagger, chunk_rows=self.chunk_rows, workers=self.workers)

    def _substitutes(self, candidate: Candidate, context: RunContext) -> tuple[Transform, Annotate]:
        """Return the transform that replaces words, and what stores the candidates of each word."""
        from limbeck.augmentation.preparation import in_faster_precision, substitution
        from limbeck.augmentation.word_candidates import MaskedModel, load_masked_model
        from limbeck.augmentation.word_vectors import embedding_vectors, read_vectors

        masked, task = None, candidate.task
        if self.mlm:
            model, tokenizer = load_masked_model(self.mlm)
            half, width = self.mixed_precision == "bf16", self.positions_per_pass
            masked = MaskedModel(model, tokenizer, self.top_k, width, half=half, max_length=task.max_length)
            if self.mixed_precision == "auto":
                masked = in_faster_precision(masked, task, context.memo, context.log)
        if self.vectors:
            vectors = partial(read_vectors, self.vectors)
        else:
            vectors = partial(embedding_vectors, candidate.model, candidate.tokenizer)
        return substitution(task, vectors, masked, top_k=self.top_k, replace_probability=self.replace_probability)
