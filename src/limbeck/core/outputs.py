"""The meaning of a model's outputs, decided once from config.json, the weights present and, if there is one, the task.

The outputs are a number, a score, one of several classes, several labels, or a label for every word. Code that reads,
trains, measures or describes a head asks an :class:`OutputSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.core.decision import Decision
from limbeck.core.kinds import KINDS, find
from limbeck.core.label_names import digits, is_token_classifier, listed, read_labels, silent
from limbeck.core.logits import Activation, activate, describe_bad_numbers
from limbeck.core.output_kind import Output
from limbeck.core.sentence_embedding import embedding_in
from limbeck.core.task_kind import PROBLEM_TYPES
from limbeck.errors import InputError, shown


class Score(Output):
    """A number that a model gives as a score of a text or a pair, through an activation; no task has such labels."""

    name = "score"
    problem_type = None
    activation = "sigmoid"
    numeric = True
    answer_code = "float(numpy.exp(-numpy.logaddexp(0, -logits[0])))"

    def answer(self, logits: np.ndarray, labels: Sequence[str], activation: Activation) -> dict[str, Any]:
        """Return the score.

        Args:
            logits: [1].
            labels: Ignored.
            activation: The model's own.
        """
        return {"answer": float(activate(logits, activation)[0]), "scores": {}}


SCORE = Score()


def output(kind: str) -> Output:
    """Return what outputs of a kind mean: of a kind of task, or 'score'."""
    return SCORE if kind == SCORE.name else find(kind)


SECTION, ACTIVATION = "sentence_transformers", "activation_fn"
"""Where config.json says what sentence-transformers' CrossEncoder does with the single output."""
LEGACY_ACTIVATION = "sbert_ce_default_activation_function"  #: the same, as written before sentence-transformers 4
SCORE_ACTIVATIONS: Mapping[str, Activation] = {"sigmoid": "sigmoid", "identity": "identity", "tanh": "tanh"}
"""Activations of a single output by the lower-case names of torch's classes."""


@dataclass(frozen=True)
class OutputSpec:
    """The meaning of a model's outputs.

    ``labels`` are in the order of the outputs; empty for an unnamed number or score and for a model without a head.
    ``missing`` names the tensors of the head that the weights lack: such a head is untrained.

    >>> OutputSpec.for_task("classification", ("no", "yes")).decode([0.0, 2.0])["answer"]
    'yes'
    """

    kind: str
    labels: tuple[str, ...]
    activation: Activation
    missing: tuple[str, ...] = ()
    open_kind: bool = False
    """Whether config.json does not say if several outputs are classes or labels; the task then decides."""

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], source: object = "model", missing: Iterable[str] = ()
    ) -> OutputSpec:
        """Derive the meaning from the content of a config.json.

        Args:
            config: Content of config.json.
            source: Name of the model in errors.
            missing: Tensors of the head that the weights lack.

        Raises:
            InputError: The label names are unusable, or the activation is unknown.
        """
        if embedding_in(config, source) is not None:
            return cls("embedding", (), "identity")
        labels, problem = read_labels(config, source), config.get("problem_type")
        # a tuple compares any value
        if problem is not None and problem not in PROBLEM_TYPES:
            names = ", ".join(sorted(PROBLEM_TYPES))
            raise InputError(f"{source}: config.json has problem_type {shown(problem)}; choose from {names}")
        marked = [kind for kind in KINDS.values() if kind.config_mark is not None and config.get(kind.config_mark)]
        if marked and len(labels) == 1:
            return cls(marked[0].name, labels, marked[0].activation, tuple(missing))
        declared = _declared_activation(config, source)
        words, usual = is_token_classifier(config), KINDS["classification"].problem_type
        kind = next(  # of words there is one
            kind
            for kind in KINDS.values()
            if kind.per_token == words and (words or kind.problem_type == (problem or usual))
        )
        is_score = declared not in (None, "identity") if kind.numeric else kind.single_class and len(labels) == 1
        if is_score:
            return cls("score", labels, declared or "sigmoid", tuple(missing))
        return cls(kind.name, labels, kind.activation, tuple(missing), open_kind=problem is None and not words)

    @classmethod
    def for_task(cls, kind: str, labels: Sequence[str]) -> OutputSpec:
        """Return the meaning of a head that is made for a task."""
        return cls(kind, tuple(map(str, labels)), output(kind).activation)

    @property
    def problem_type(self) -> str | None:
        """Name of this kind in transformers; None for a score."""
        return output(self.kind).problem_type

    @property
    def per_token(self) -> bool:
        """Whether every word has its own answer."""
        return output(self.kind).per_token

    @property
    def trained(self) -> bool:
        """Whether there is a head whose tensors were all in the weights."""
        return (bool(self.labels) or output(self.kind).vectors) and not self.missing

    @property
    def untrained(self) -> str:
        """Reason why the head is untrained; empty if it is trained."""
        return "" if self.trained else missing_tensors(self.missing) if self.missing else "it has no head"

    def decode(self, logits: npt.ArrayLike, decision: Decision | None = None) -> dict[str, Any]:
        """Convert the logits of one text to its ``answer`` and the ``scores`` behind it.

        Args:
            logits: [label]; for tokens [word, label], one row for each word.
            decision: Fitted thresholds and temperature, instead of the kind's usual rule.

        Returns:
            classification: the label, and the probability of each label; multilabel: the labels with a probability
            above one half, and all probabilities; regression and score: the number, no scores; tokens: the labels
            joined by spaces, and ``labels`` as a list.

        Raises:
            InputError: A logit is NaN or infinite.
        """
        values = np.asarray(logits, dtype=float)
        if bad := describe_bad_numbers(values):
            raise InputError(f"the model's outputs are not numbers: {bad}")
        if decision is not None:
            return output(self.kind).decide(values, self.labels, self.activation, decision)
        return output(self.kind).answer(values, self.labels, self.activation)

    def match(self, kind: str, labels: Sequence[str]) -> Match:
        """Match the outputs with a task's labels.

        Args:
            kind: The task's kind.
            labels: The task's label names; ignored for regression.

        Returns:
            The match; its ``refusal`` says why the head does not fit the task.
        """
        wanted = find(kind)
        if wanted.vectors:
            return Match()  # every encoder has hidden states to pool
        if output(self.kind).vectors:
            return Match(refusal="it has no head")
        if not self.trained:
            return Match(refusal=self.untrained)
        if self.per_token != wanted.per_token:
            return Match(refusal=f"it answers {'words' if self.per_token else 'whole texts'}, the task is {kind}")
        if wanted.numeric:
            return self._match_number(ranks=wanted.grouped)
        if output(self.kind).numeric:
            return Match(refusal=f"it has one output, a number, and the task is {kind}; {AS_NUMBERS}")
        if self.kind != kind and not self.open_kind:
            return Match(refusal=f"its outputs are {self.kind}, the task is {kind}")
        return match_labels(self.labels, tuple(map(str, labels)), subset=not wanted.several)

    def _match_number(self, *, ranks: bool) -> Match:
        if output(self.kind).numeric and (ranks or self.activation == "identity"):  # none changes the order
            return Match(outputs=(0,), names=self.labels[:1])
        if output(self.kind).numeric:
            return Match(
                refusal=f"its output is a score ({self.activation} of the logit), the task's labels are plain numbers; "
                'if the logit itself is the number, say "problem_type": "regression" in its config.json'
            )
        return Match(refusal=f"it has {len(self.labels)} classes, the task's labels are numbers")


AS_NUMBERS = "'limbeck predict' gives its answers"


@dataclass(frozen=True)
class Match:
    """Mapping from a task's labels to a model's outputs.

    ``outputs`` has the output's index for each label of the task. ``names`` are the names of the outputs, in the
    model's order. ``assumed``: labels were matched by position alone. ``refusal`` says why the two do not match; empty
    if they do.
    """

    outputs: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    assumed: bool = False
    refusal: str = ""

    def __bool__(self) -> bool:
        return not self.refusal


def match_labels(outputs: Sequence[str], labels: Sequence[str], *, subset: bool = True) -> Match:
    """Match a task's label names with those of a model's outputs.

    Order and case do not matter. If either side has placeholders (``LABEL_0``, ``0``), labels are matched by position,
    which is an assumption.

    Args:
        outputs: Names of the model's outputs.
        labels: Label names of the task.
        subset: Whether the task may have only some of the labels.

    >>> match_labels(["NEGATIVE", "POSITIVE"], ["positive", "negative"]).outputs
    (1, 0)
    >>> match_labels(["LABEL_0", "LABEL_1"], ["bad", "good"])
    Match(outputs=(0, 1), names=('bad', 'good'), assumed=True, refusal='')
    >>> bool(match_labels(["entailment", "contradiction"], ["negative", "positive"]))
    False
    """
    outputs, labels = tuple(outputs), tuple(labels)
    for fold in (str, folded):
        available, wanted = [fold(name) for name in outputs], [fold(name) for name in labels]
        if len(set(available)) < len(available) or len(set(wanted)) < len(wanted):
            continue
        some = subset and (fold is str or not silent(labels))  # a rating that no row has: 0 and 2 of 0, 1, 2
        if set(wanted) <= set(available) and (len(wanted) == len(available) or some):
            return Match(tuple(available.index(name) for name in wanted), outputs)
    if subset and len(labels) == 1 < len(outputs) and (number := digits(labels[0])) and int(number) < len(outputs):
        return Match((int(number),), outputs, assumed=True)  # a file of one class, for evaluation only
    if len(outputs) != len(labels) or not (silent(outputs) or silent(labels)):
        return Match(refusal=f"its labels are {listed(outputs)}, the task's are {listed(labels)}")
    return Match(tuple(range(len(labels))), outputs if silent(labels) else labels, assumed=True)


def folded(name: str) -> str:
    """Return a label's name without differences of case and white space.

    >>> folded("Very  Good")
    'very good'
    """
    return " ".join(name.split()).casefold()


def answer_code(kind: str, labels: str, default: str = "0") -> str:
    """Return Python code that computes the answer to one text from its ``logits``.

    Args:
        kind: Meaning of the outputs.
        labels: Code for the label names.
        default: Code for the index of the label of words that were cut off.

    >>> answer_code("classification", "names")
    'names[logits.argmax()]'
    """
    return output(kind).answer_code.format(labels=labels, default=default)


def _declared_activation(config: Mapping[str, Any], source: object) -> Activation | None:
    """Read the activation that sentence-transformers stores for a single output; None if there is none."""
    section = config.get(SECTION)
    class_name = section.get(ACTIVATION) if isinstance(section, Mapping) else None
    class_name = class_name or config.get(LEGACY_ACTIVATION)
    if class_name is None:
        return None
    activation = SCORE_ACTIVATIONS.get(str(class_name).rpartition(".")[2].lower())
    if activation is None and len(read_labels(config, source)) == 1:
        raise InputError(
            f"{source}: config.json has the activation {shown(class_name)}; known are "
            + ", ".join(f"torch.nn.{name.capitalize()}" for name in SCORE_ACTIVATIONS)
        )
    return activation


def missing_tensors(names: Iterable[str]) -> str:
    """Describe which tensors of a head the weights lack."""
    names = tuple(names)
    if len(names) == 1 and " " in names[0]:  # a sentence, as folders written by limbeck store it
        return names[0]
    return f"its weights lack {len(names)} tensor{'s' * (len(names) != 1)} of the head: {listed(names)}"
