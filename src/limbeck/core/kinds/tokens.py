"""A label for every word of a text; the first token of a word carries it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.logits import Activation, activate
from limbeck.core.metrics import IGNORED, METRICS, OUTSIDE, default_label
from limbeck.core.statistics import pack_numbers, resampled_score
from limbeck.core.task_kind import Assessment, Label, Logits, TaskKind, per_class
from limbeck.errors import InputError


class Tokens(TaskKind):
    """A label for every word. A label is a tuple of class indices, one for each word."""

    name = "tokens"
    problem_type = "single_label_classification"
    per_token = True
    answer_code = "[{labels}[seen[i].argmax()] if i in seen else {labels}[{default}] for i in range(len(words))]"
    default_metric = "token_f1"
    first_label = OUTSIDE
    label_noun = ("word label", "word labels")
    auto_class = "AutoModelForTokenClassification"
    pipeline = "token-classification"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the labels of the words as a list, and joined by spaces.

        Args:
            logits: [words, labels].
            labels: The label names.
            activation: The model's own.
        """
        tags = [labels[index] for index in logits.argmax(axis=-1)]
        return {"answer": " ".join(tags), "labels": tags}

    def label_of(self, answer: Mapping[str, Any], names: Sequence[str]) -> Label:
        """Return the class of every word."""
        index = {name: position for position, name in enumerate(names)}
        return tuple(index[name] for name in answer["labels"])

    def parts(self, cell: Any, separator: str | None) -> Any:  # a cell of any type
        """Divide a text at white space; keep a list."""
        return cell.split() if isinstance(cell, str) else cell

    def encode(self, indices: Sequence[int], width: int, words: int) -> Label:
        """Return the class of every word.

        Args:
            indices: Index of each word's class.
            width: Number of label names.
            words: Number of words of the text.

        Raises:
            InputError: There is not one for each word.
        """
        if len(indices) != words:
            raise InputError(f"{words} words but {len(indices)} tags")
        return tuple(indices)

    def renumber(self, label: Label, indices: Sequence[int], width: int) -> Label:
        """Change the class of every word.

        Args:
            label: The label.
            indices: The new index of each old label.
            width: Number of new label names.
        """
        return tuple(indices[tag] if tag >= 0 else tag for tag in label)

    def classes_in(self, label: Label) -> Iterable[int]:
        """Return the class of every word."""
        classes: Iterable[int] = label
        return classes

    def truth(self, labels: Sequence[Label] | np.ndarray) -> np.ndarray:
        """Return the classes of all words, one row after another [words]."""
        return np.concatenate([np.asarray(row, dtype=np.int64).reshape(-1) for row in labels])

    def decisions(self, logits: Logits, labels: Sequence[Label] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Join the rows, without positions labelled ``IGNORED``.

        Args:
            logits: For each row [positions, labels].
            labels: For each row [positions].

        Returns:
            Logits [words, labels], and classes [words].
        """
        truth = self.truth(labels)
        rows = [np.asarray(row) for row in logits]
        joined = np.concatenate([row.reshape(-1, row.shape[-1]) for row in rows])
        counted = truth != IGNORED
        return joined[counted], truth[counted]

    def same_answers(self, first: Logits, second: Logits, labels: Sequence[npt.ArrayLike]) -> np.ndarray:
        """Return whether two models label every word alike [rows].

        Args:
            first: For each row [positions, labels].
            second: For each row [positions, labels].
            labels: For each row [positions]; positions labelled ``IGNORED`` do not count.
        """
        masks = [np.asarray(row) != IGNORED for row in labels]
        triples = zip(first, second, masks, strict=True)
        return np.array([bool((self.decode(a)[mask] == self.decode(b)[mask]).all()) for a, b, mask in triples])

    def assess(
        self,
        metric: str,
        names: Sequence[str],
        logits: Logits,
        labels: Sequence[Label],
        unseen: Sequence[Sequence[int]] = (),
    ) -> Assessment:
        """Score with a bootstrap interval over the texts; keep the values on the resamples.

        Args:
            metric: Name of the metric.
            names: The label names.
            logits: For each row [positions, labels].
            labels: For each row [positions].
            unseen: For each row, the classes of the words that have no token.
        """
        truths = [np.asarray(row) for row in labels]
        guesses = [self.decode(row)[truth != IGNORED] for row, truth in zip(logits, truths, strict=True)]
        truths = [truth[truth != IGNORED] for truth in truths]
        if unseen:
            other = default_label(names)
            guesses = [np.append(guess, [other] * len(rest)) for guess, rest in zip(guesses, unseen, strict=True)]
            truths = [np.append(truth, list(rest)) for truth, rest in zip(truths, unseen, strict=True)]
            guesses, truths = ([row.astype(np.int64) for row in rows] for rows in (guesses, truths))
        quality, values = resampled_score(
            lambda guess, truth: METRICS[metric](np.concatenate(guess), np.concatenate(truth)), guesses, truths
        )
        counts = per_class(names, np.concatenate(guesses), np.concatenate(truths))
        detail = {"per_label": counts, "resampled": pack_numbers(values)}
        count = sum(map(len, unseen))
        return Assessment(quality, detail | ({"unseen_words": count} if count else {}))

    def review(
        self, logits: npt.ArrayLike, label: Label, confidence: float, aligned: Sequence[int] = ()
    ) -> tuple[Label, Label]:
        """Compare the most probable class of every word with its label.

        Args:
            logits: [positions, labels].
            label: The label of the row.
            confidence: Probability from which the model overrules the label of a word.
            aligned: A label at the first position of each word, and IGNORED elsewhere [positions].
        """
        probabilities = activate(logits, self.activation)
        starts = [position for position, tag in enumerate(aligned) if tag != IGNORED]
        tags = [int(probabilities[position].argmax()) for position in starts]
        confident = [bool(probabilities[position].max() >= confidence) for position in starts]
        rest = tuple(label[len(starts) :])
        changed = tuple(new if sure else old for new, old, sure in zip(tags, label, confident, strict=False))
        return (*tags, *rest), changed + rest


KIND = Tokens()
