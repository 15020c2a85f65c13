"""Keep only the tokens that the task's texts use: a smaller tokenizer, and fewer rows of word embeddings.

References: Abdaoui et al., 2020, arXiv:2010.05609 (multilingual models with the tokens of some languages); TextPruner
(Yang et al., 2022, arXiv:2203.15996: vocabulary pruning). Differs: all letters stay, and of BPE all merges on the way
to a kept token, so that texts of kept tokens are answered as before, bit by bit, and other words are spelled.

    steps:
      - finetune: {}
      - distill: {}
      - vocabulary: {}          # or before 'distill', which then makes good for words that are spelled
      - export: {}
      - quantize: {}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from limbeck.core.candidate import Candidate
from limbeck.core.paths import user_path
from limbeck.core.step import RunContext, StepInfo, Technique, step
from limbeck.core.tokenizer import spaced
from limbeck.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.core.task import Task

TEXTS_PER_SECOND = 10_000.0  # that a tokenizer reads on one core; rough
LINES = 1000  #: of a corpus that are read together


@step(
    StepInfo(
        "vocabulary",
        label="fewer tokens",
        needs={"torch"},
        headless=True,
        keeps_shape=True,
        files=frozenset({"corpus"}),
        example={"min_count": 2},
    )
)
class Vocabulary(Technique):
    """Remove from the tokenizer and the word embeddings what the training texts do not use.

    Special tokens and single letters stay, so a word that was not seen is spelled in smaller pieces. Layers and speed
    stay as they are. In 'distill' a teacher with the whole vocabulary reads the tokens that are left.

    Attributes:
        min_count: How often a token must appear in the training texts (and the corpus) to stay.
        corpus: A file of further texts, one a line, whose tokens count too.
    """

    min_count: Annotated[int, Ge(1)] = 1
    corpus: str | None = None

    def decisive_services(self, read: Mapping[str, Any], task: Task, target: Target) -> Mapping[str, Any]:
        """Mark results of pairs of texts whose vectors are compared: once, second texts did not count.

        Args:
            read: The services that the step reads.
            task: The task.
            target: Ignored.
        """
        apart = task.task_kind.vectors and task.split("train").pairs is not None
        return {**read, "second_texts": "counted"} if apart else read

    def file_problems(self) -> list[str]:
        """Return the problems of the corpus."""
        from limbeck.data.corpus.documents import numbered_lines
        from limbeck.data.readers import missing_file

        if self.corpus is None:
            return []
        path = user_path(self.corpus)
        if not path.is_file():
            return [f"corpus: {missing_file(path)}"]
        try:
            return [] if next(numbered_lines(path), None) else [f"corpus: {path} is empty"]
        except InputError as error:
            return [f"corpus: {error}"]

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:
        """Return rough seconds for the task's own texts; unknown for a corpus, which is not read for this.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        texts = rows.get("train", 0) + 2 * rows.get("validation", 0)
        return 2.0 + texts / TEXTS_PER_SECOND if self.corpus is None else None

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with fewer tokens."""
        import numpy as np

        from limbeck.model.vocabulary import trim

        if problems := self.file_problems():
            raise InputError(f"vocabulary.{problems[0]}")
        counts = self.counts(candidate)
        used = np.flatnonzero(counts >= self.min_count).tolist()
        model, tokenizer, tokens = trim(candidate.model, candidate.tokenizer, used)
        share = 100 * counts[tokens].sum() / counts.sum()
        message = (
            f"{len(tokens):,} of {len(candidate.tokenizer):,} tokens stay, {share:.2f} % of those in the training texts"
        )
        message += " and the corpus" if self.corpus else ""
        if "validation" in candidate.task.splits:
            same = read_alike(candidate, tokenizer, tokens, "validation")
            message += f"; {100 * same.mean():.1f} % of {len(same):,} validation texts are read as before"
        context.log(message)
        yield replace(candidate, model=model, tokenizer=tokenizer, folder=None)

    def counts(self, candidate: Candidate) -> np.ndarray:
        """Count how often each token appears [tokens]."""
        import numpy as np

        from limbeck.data.batching import encode

        count = max(candidate.tokenizer.get_vocab().values()) + 1
        counts = np.zeros(count, dtype=np.int64)
        own: Sequence[Sequence[int]] = encode(candidate.task, "train", candidate.tokenizer).sequences
        for texts in chain([own], self.further(candidate)):
            counts += np.bincount(np.concatenate([np.asarray(ids, dtype=np.int64) for ids in texts]), minlength=count)
        return counts

    def further(self, candidate: Candidate) -> Iterator[Sequence[Sequence[int]]]:
        """Yield the corpus in tokens, some lines at a time; lines are split into words for token tasks."""
        from limbeck.data.corpus.documents import numbered_lines

        if self.corpus is None:
            return
        words = candidate.task.task_kind.per_token
        tokenizer = spaced(candidate.tokenizer) if words else candidate.tokenizer
        lines = (line for _, line in numbered_lines(user_path(self.corpus)) if line.strip())
        while some := list(islice(lines, LINES)):
            texts = [line.split() for line in some] if words else some
            options = {"is_split_into_words": words, "return_attention_mask": False, "verbose": False}
            yield tokenizer(texts, add_special_tokens=False, **options)["input_ids"]


def read_alike(candidate: Candidate, tokenizer: PreTrainedTokenizerBase, tokens: list[int], split: str) -> np.ndarray:
    """Return which texts of a split the trimmed tokenizer splits into the same tokens [texts], second texts last.

    Args:
        candidate: The candidate before trimming.
        tokenizer: The trimmed tokenizer.
        tokens: Old ids of the tokens that stay, in their new order.
        split: Name of the split.
    """
    import numpy as np

    from limbeck.data.batching import encode

    new = {old: new_id for new_id, old in enumerate(tokens)}
    before, after = (encode(candidate.task, split, reader).sequences for reader in (candidate.tokenizer, tokenizer))
    return np.array([[new.get(old) for old in old_ids] == ids for old_ids, ids in zip(before, after, strict=True)])
