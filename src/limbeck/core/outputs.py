"""What a model's outputs mean: decided once, from config.json, the weights that exist, and the task if there is one.

A number, one score, one of several classes, several labels, or a label for every word. Everything that reads, trains,
measures or describes a head asks an :class:`OutputSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from limbeck.errors import InputError

OutputKind = Literal["classification", "multilabel", "regression", "tokens", "score"]
Activation = Literal["softmax", "sigmoid", "identity", "tanh"]

PROBLEM_TYPES: Mapping[str, str] = {
    "classification": "single_label_classification",
    "tokens": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}
"""What transformers calls each kind of output; a score has no name there."""

ANSWER_CODE: Mapping[str, str] = {
    "classification": "{labels}[logits.argmax()]",
    "multilabel": "[label for label, logit in zip({labels}, logits) if logit > 0]",
    "regression": "float(logits[0])",
    "score": "float(numpy.exp(-numpy.logaddexp(0, -logits[0])))",
    "tokens": "[{labels}[seen[i].argmax()] if i in seen else {labels}[{default}] for i in range(len(words))]",
}
"""Python code that turns the logits of one text into its answer; ``{labels}`` stands for the label names, ``{default}``
for the number of the label of words that were not seen. For tokens there are ``words`` and, by the number of each word
that was seen, ``seen``, the logits of its first token."""

SCORE_ACTIVATIONS: Mapping[str, Activation] = {"sigmoid": "sigmoid", "identity": "identity", "tanh": "tanh"}
"""Activations of one output by the lower-case names of torch's classes."""


@dataclass(frozen=True)
class OutputSpec:
    """The meaning of a model's outputs.

    ``labels`` are in the order of the outputs; empty for a number or a score without a name, and for a model without a
    head. ``missing`` names the tensors of the head that the weights lack: such a head is untrained.

    >>> OutputSpec.for_task("classification", ("no", "yes")).decode([0.0, 2.0])["answer"]
    'yes'
    """

    kind: OutputKind
    labels: tuple[str, ...]
    activation: Activation
    missing: tuple[str, ...] = ()
    open_kind: bool = False
    """Whether config.json leaves open if several outputs are one class or several labels; the task then decides."""

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], source: object = "model", missing: Iterable[str] = ()
    ) -> OutputSpec:
        """Read the content of a config.json.

        Args:
            config: Content of config.json.
            source: What to call the model in errors.
            missing: Tensors of the head that the weights lack.

        Raises:
            InputError: The label names are unusable, or the activation is unknown.
        """
        labels, problem = read_labels(config, source), config.get("problem_type")
        if problem is not None and problem not in PROBLEM_TYPES.values():
            names = ", ".join(sorted(set(PROBLEM_TYPES.values())))
            raise InputError(f"{source}: config.json has problem_type {problem!r}; choose from {names}")
        own = _own_activation(config, source)
        if is_token_classifier(config):
            return cls("tokens", labels, "softmax", tuple(missing))
        if problem == "multi_label_classification":
            return cls("multilabel", labels, "sigmoid", tuple(missing))
        if problem == "regression" and own in (None, "identity"):
            return cls("regression", labels, "identity", tuple(missing))
        if problem == "regression" or len(labels) == 1:
            return cls("score", labels, own or "sigmoid", tuple(missing))
        return cls("classification", labels, "softmax", tuple(missing), open_kind=problem is None)

    @classmethod
    def for_task(cls, kind: OutputKind, labels: Sequence[str]) -> OutputSpec:
        """What a model made for a task answers."""
        activations: dict[str, Activation] = {"multilabel": "sigmoid", "regression": "identity", "score": "sigmoid"}
        return cls(kind, tuple(map(str, labels)), activations.get(kind, "softmax"))

    @property
    def problem_type(self) -> str | None:
        """The name that transformers has for this kind; None for a score."""
        return PROBLEM_TYPES.get(self.kind)

    @property
    def per_token(self) -> bool:
        """Whether every word has an answer of its own."""
        return self.kind == "tokens"

    @property
    def trained(self) -> bool:
        """Whether there is a head, and all of it comes from the weights."""
        return bool(self.labels) and not self.missing

    @property
    def untrained(self) -> str:
        """Why the head is not trained, in words; empty if it is."""
        return "" if self.trained else missing_tensors(self.missing) if self.missing else "it has no head"

    def decode(self, logits: Any) -> dict[str, Any]:
        """Turn the logits of one text into its ``answer`` and the ``scores`` behind it.

        Args:
            logits: [label]; for tokens [word, label], one row for each word.

        Returns:
            classification: the label, and the probability of each label; multilabel: the labels with a probability over
            one half, and all probabilities; regression and score: the number, no scores; tokens: the labels joined by
            spaces, and ``labels`` one by one.

        Raises:
            InputError: A logit is NaN or infinite.
        """
        values = np.asarray(logits, dtype=float)
        if bad := describe_bad_numbers(values):
            raise InputError(f"the model's outputs are not numbers: {bad}")
        if self.kind == "tokens":
            tags = [self.labels[index] for index in values.argmax(axis=-1)]
            return {"answer": " ".join(tags), "labels": tags}
        if self.kind in ("regression", "score"):
            return {"answer": float(activate(values, self.activation)[0]), "scores": {}}
        scores = activate(values, self.activation)
        named = dict(zip(self.labels, map(float, scores), strict=True))
        if self.kind == "multilabel":
            return {"answer": ", ".join(label for label, score in named.items() if score > 0.5), "scores": named}
        return {"answer": self.labels[int(values.argmax())], "scores": named}

    def match(self, kind: str, labels: Sequence[str]) -> Match:
        """Find the outputs that stand for a task's labels.

        Args:
            kind: The task's kind.
            labels: The task's label names; without meaning for regression.

        Returns:
            The match; its ``refusal`` says why the head does not answer the task.
        """
        if not self.trained:
            return Match(refusal=self.untrained)
        if self.per_token != (kind == "tokens"):
            return Match(refusal=f"it answers {'words' if self.per_token else 'whole texts'}, the task is {kind}")
        if kind == "regression":
            return self._match_number()
        if self.kind in ("regression", "score"):
            return Match(refusal=f"it has one output, a number, and the task is {kind}; {AS_NUMBERS}")
        if self.kind != kind and not self.open_kind:
            return Match(refusal=f"its outputs are {self.kind}, the task is {kind}")
        return match_labels(self.labels, tuple(map(str, labels)), subset=kind != "multilabel")

    def _match_number(self) -> Match:
        if self.kind == "regression" or (self.kind == "score" and self.activation == "identity"):
            return Match(outputs=(0,), names=self.labels[:1])
        if self.kind == "score":
            return Match(
                refusal=f"its output is a score ({self.activation} of the logit), the task's labels are plain numbers; "
                'if the logit itself is the number, say "problem_type": "regression" in its config.json'
            )
        return Match(refusal=f"it has {len(self.labels)} classes, the task's labels are numbers")


AS_NUMBERS = "'limbeck predict' gives its answers"


@dataclass(frozen=True)
class Match:
    """How a task's labels lie among a model's outputs.

    ``outputs`` has the output of each label of the task. ``names`` are what the outputs are called, in the model's
    order. ``assumed``: nothing but the position says which output is which label. ``refusal`` is why the two do not
    match, empty if they do.
    """

    outputs: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    assumed: bool = False
    refusal: str = ""

    def __bool__(self) -> bool:
        return not self.refusal


def match_labels(outputs: Sequence[str], labels: Sequence[str], *, subset: bool = True) -> Match:
    """Match label names of a task with those of a model's outputs.

    The same names, in any order and case; or some of them (``subset``). Names that say nothing (``LABEL_0``, ``0``) on
    either side are matched by their position in the lists, which is an assumption.

    >>> match_labels(["NEGATIVE", "POSITIVE"], ["positive", "negative"]).outputs
    (1, 0)
    >>> match_labels(["LABEL_0", "LABEL_1"], ["bad", "good"])
    Match(outputs=(0, 1), names=('bad', 'good'), assumed=True, refusal='')
    >>> bool(match_labels(["entailment", "contradiction"], ["negative", "positive"]))
    False
    """
    outputs, labels = tuple(outputs), tuple(labels)
    for fold in (str, _folded):
        before, after = [fold(name) for name in outputs], [fold(name) for name in labels]
        if len(set(before)) < len(before) or len(set(after)) < len(after):
            continue
        if set(after) <= set(before) and (len(after) == len(before) or (subset and not silent(labels))):
            return Match(tuple(before.index(name) for name in after), outputs)
    if subset and len(labels) == 1 < len(outputs) and (number := _digits(labels[0])) and int(number) < len(outputs):
        return Match((int(number),), outputs, assumed=True)  # rows of one class, to be judged: nothing trains on them
    if len(outputs) != len(labels) or not (silent(outputs) or silent(labels)):
        return Match(refusal=f"its labels are {_listed(outputs)}, the task's are {_listed(labels)}")
    return Match(tuple(range(len(labels))), outputs if silent(labels) else labels, assumed=True)


def silent(names: Sequence[str]) -> bool:
    """Whether names say nothing: ``LABEL_0`` or a whole number.

    >>> silent(["LABEL_0", "1"]), silent(["no", "yes"])
    (True, False)
    """
    return all(_digits(name) for name in names)


def _digits(name: str) -> str:
    number = name.removeprefix("LABEL_")
    return number if number.isascii() and number.isdigit() else ""


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def answer_code(kind: OutputKind, labels: str, default: str = "0") -> str:
    """Write Python code for the answer of one text from its ``logits``.

    Args:
        kind: What the outputs mean.
        labels: Code for the label names.
        default: Code for the number of the label of words that were not seen.

    >>> answer_code("classification", "names")
    'names[logits.argmax()]'
    """
    return ANSWER_CODE[kind].format(labels=labels, default=default)


def is_token_classifier(config: Mapping[str, Any]) -> bool:
    """Whether config.json names an architecture that answers every word."""
    return any(name.endswith("ForTokenClassification") for name in _architectures(config))


def _architectures(config: Mapping[str, Any]) -> list[str]:
    named = config.get("architectures") or ()
    return [str(name) for name in named] if isinstance(named, (list, tuple)) else []


def read_labels(config: Mapping[str, Any], source: object = "model") -> tuple[str, ...]:
    """Label names in the order of the outputs; empty for a model without a head.

    Raises:
        InputError: ``id2label`` does not name the outputs 0 to n-1, each by a name of its own, or ``label2id``
            contradicts it.
    """
    given = config.get("id2label")
    if given is None or given == {}:
        classifies = any(name.endswith("Classification") for name in _architectures(config))
        number = config.get("num_labels")
        if not classifies:
            return ()
        named = _label2id(config, source)
        if number is None:
            number = len(named) or 2
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{source}: config.json has num_labels {number!r}; expected a whole number of at least 1")
        names: tuple[str, ...] = tuple(f"LABEL_{index}" for index in range(number))
    else:
        names = _named_outputs(given, source)
    return _agreeing(names, config, source)


def _named_outputs(given: Any, source: object) -> tuple[str, ...]:
    what = f"{source}: id2label in config.json"
    if not isinstance(given, Mapping):
        raise InputError(
            f'{what} should map output numbers to names, as {{"0": "no", "1": "yes"}}, got {_short(given)}'
        )
    names: dict[int, str] = {}
    for key, name in given.items():
        try:
            index = int(key)
        except (TypeError, ValueError):
            raise InputError(f"{what} has the key {key!r}; keys are the numbers 0 to {len(given) - 1}") from None
        if isinstance(name, bool) or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise InputError(f"{what} names output {index} {_short(name)}; give it a name")
        names[index] = str(name)
    if sorted(names) != list(range(len(given))):
        raise InputError(
            f"{what} has the numbers {_listed([str(index) for index in sorted(names)])}; the {len(given)} outputs are "
            f"numbered 0 to {len(given) - 1}"
        )
    ordered = tuple(names[index] for index in range(len(names)))
    if twice := sorted({name for name in ordered if ordered.count(name) > 1}):
        raise InputError(f"{what} gives the name '{twice[0]}' to {ordered.count(twice[0])} outputs")
    return ordered


def _label2id(config: Mapping[str, Any], source: object) -> dict[str, int]:
    given = config.get("label2id")
    if given is None:
        return {}
    whole = isinstance(given, Mapping) and all(isinstance(index, (int, str)) for index in given.values())
    try:
        return {str(name): int(index) for name, index in given.items()} if whole else _wrong_label2id(given, source)
    except ValueError:
        return _wrong_label2id(given, source)


def _wrong_label2id(given: Any, source: object) -> dict[str, int]:
    raise InputError(f"{source}: label2id in config.json should map names to output numbers, got {_short(given)}")


def _agreeing(names: tuple[str, ...], config: Mapping[str, Any], source: object) -> tuple[str, ...]:
    """The names, if label2id says the same or nothing; label2id's own where id2label says nothing."""
    named = _label2id(config, source)
    if not named or (silent(tuple(named)) and not set(named) & set(names)):
        return names  # the default of a configuration whose author set id2label alone
    if silent(names) and not silent(tuple(named)) and sorted(named.values()) == list(range(len(names))):
        return tuple(sorted(named, key=named.__getitem__))
    for name, index in named.items():
        if not 0 <= index < len(names) or names[index] != name:
            other = f"'{names[index]}'" if 0 <= index < len(names) else "no such output"
            raise InputError(
                f"{source}: config.json contradicts itself: label2id has '{name}' as output {index}, id2label has "
                f"{other}; correct one of them"
            )
    return names


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _own_activation(config: Mapping[str, Any], source: object) -> Activation | None:
    """The activation that sentence-transformers wrote for one output; None where it wrote none."""
    section = config.get("sentence_transformers")
    named = section.get("activation_fn") if isinstance(section, Mapping) else None
    named = named or config.get("sbert_ce_default_activation_function")
    if named is None:
        return None
    activation = SCORE_ACTIVATIONS.get(str(named).rpartition(".")[2].lower())
    if activation is None and len(read_labels(config, source)) == 1:
        raise InputError(
            f"{source}: config.json has the activation {named!r}; known are "
            + ", ".join(f"torch.nn.{name.capitalize()}" for name in SCORE_ACTIVATIONS)
        )
    return activation


def activate(logits: Any, activation: Activation) -> np.ndarray:
    """Apply an activation over the last axis without overflow, [..., label] to [..., label].

    >>> activate([-1000.0, 0.0, 1000.0], "sigmoid").tolist()
    [0.0, 0.5, 1.0]
    """
    values = np.asarray(logits, dtype=float)
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0.0, -values))
    if activation == "tanh":
        return np.tanh(values)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    return values


def describe_bad_numbers(values: Any) -> str:
    """Count NaN and infinity in an array in words; empty if all numbers are finite.

    >>> describe_bad_numbers([1.0, float("nan"), float("inf")])
    '1 NaN and 1 infinite of 3'
    """
    array = np.asarray(values)
    if np.isfinite(array).all():
        return ""
    counts = {"NaN": int(np.isnan(array).sum()), "infinite": int(np.isinf(array).sum())}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items() if count) + f" of {array.size:,}"


def require_finite_logits(logits: Iterable[Any], texts: Sequence[Any], source: object = "the model") -> None:
    """Refuse logits that are no numbers, and name the first text that has them.

    Args:
        logits: One array for each text, [label] or [position, label].
        texts: The texts, in the same order.
        source: What to call the model.

    Raises:
        InputError: A logit is NaN or infinite.
    """
    for index, row in enumerate(logits):
        if bad := describe_bad_numbers(row):
            text = str(texts[index]) if index < len(texts) else ""
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise InputError(
                f"{source} gives no numbers for text {index + 1} ({shown!r}): its outputs are {bad}; "
                "its weights or their sizes are at fault, so train it again or take an earlier checkpoint"
            )


def missing_tensors(names: Iterable[str]) -> str:
    """Say which tensors of a head the weights lack."""
    names = tuple(names)
    if len(names) == 1 and " " in names[0]:  # what a folder that limbeck wrote says of itself
        return names[0]
    return f"its weights lack {len(names)} tensor{'s' * (len(names) != 1)} of the head: {_listed(names)}"
