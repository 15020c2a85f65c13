"""Early exits: heads after inner layers that answer when they are sure, and the rule that says when.

References: DeeBERT (Xin et al., 2020, arXiv:2004.12993: entropy), PABEE (Zhou et al., 2020, arXiv:2006.04152:
patience), CALM (Schuster et al., 2022, arXiv:2207.07061: a threshold that is tested, from the strictest one on, so that
a stated share of answers holds with a stated confidence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from limbeck.core.measurement import EARLY_EXITS, Measurement
from limbeck.core.statistics import largest_share, wilson
from limbeck.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from limbeck.core.step import StepInfo
    from limbeck.core.target import Target
    from limbeck.core.task_kind import TaskKind

SECTION = "early_exits"
"""The entry of config.json."""
Criterion = Literal["confidence", "entropy", "patience"]
SURE = 0.95
"""How probable it has to be that no larger share of answers changes than is allowed."""
STRICT = (0.99999, 0.9999, 0.9995, 0.999, 0.998, 0.995, 0.99, 0.985)
"""The first probabilities that are tried: well-trained models are this sure of most texts, of wrong answers too."""
CONFIDENCES = (*STRICT, *(round(0.98 - 0.01 * step, 2) for step in range(49)))
"""Largest probabilities that are tried, down to one half."""
ENTROPIES = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, *(round(0.03 * step, 2) for step in range(1, 34)))
"""Entropies that are tried, as shares of the largest possible one."""


@dataclass(frozen=True)
class EarlyExits:
    """Where heads stand, and when they answer.

    Attributes:
        layers: After how many layers each head stands, ascending.
        criterion: By what a head is sure: its largest probability is at least the threshold (confidence), the entropy
            of its probabilities at most, in nats (entropy), or so many heads in a row before it gave its answer
            (patience).
        threshold: The threshold; None: no head ever answers.

    >>> EarlyExits.from_json(EarlyExits((2, 4), "entropy", 0.1).to_json())
    EarlyExits(layers=(2, 4), criterion='entropy', threshold=0.1)
    """

    layers: tuple[int, ...]
    criterion: Criterion = "confidence"
    threshold: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as in config.json."""
        return {"layers": list(self.layers), "criterion": self.criterion, "threshold": self.threshold}

    @classmethod
    def from_json(cls, data: object, source: object = "model") -> EarlyExits:
        """Invert :meth:`to_json`.

        Args:
            data: The entry of a config.json.
            source: Name of the model in errors.

        Raises:
            InputError: The entry is damaged.
        """
        where = f"{source}: {SECTION} in config.json"
        if not isinstance(data, Mapping) or data.keys() != {"layers", "criterion", "threshold"}:
            raise InputError(f"{where} should have layers, criterion and threshold, got {shown(data)}")
        layers, criterion, threshold = data["layers"], data["criterion"], data["threshold"]
        whole = isinstance(layers, (list, tuple)) and layers and all(type(layer) is int for layer in layers)
        if not whole or layers[0] < 1 or any(later <= layer for layer, later in pairwise(layers)):
            raise InputError(f"{where}: layers should be whole numbers from 1, ascending, got {shown(layers)}")
        if criterion not in get_args(Criterion):
            raise InputError(f"{where}: criterion {shown(criterion)}; {nearest(str(criterion), get_args(Criterion))}")
        if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1000):
            raise InputError(f"{where}: threshold should be a number from 0 to 1000, got {shown(threshold)}")
        return cls(tuple(layers), criterion, threshold)


def exits_in(config: Mapping[str, Any], source: object = "model") -> EarlyExits | None:
    """Return what a config.json of ours says about early exits; None for a model without."""
    if config.get(SECTION) is None:
        return None
    exits, depth = EarlyExits.from_json(config[SECTION], source), len(config.get("layer_heads", ()))
    if exits.layers[-1] >= depth:
        raise InputError(
            f"{source}: {SECTION} in config.json has a head after {exits.layers[-1]} layers, and the model has "
            f"{depth}; the last may stand after {depth - 1}"
        )
    return exits


def leaves_early(config: Mapping[str, Any], source: object = "model") -> bool:
    """Return whether a config.json of ours says that heads answer early: they stand there, and have a threshold.

    ``model/encoder.py``, which saved models carry, can import nothing from here and says the same for itself.

    Args:
        config: Content of config.json.
        source: Name of the model in errors.

    >>> rules = (EarlyExits((1,)), EarlyExits((1,), threshold=0.9))
    >>> [leaves_early({"layer_heads": [2, 2], SECTION: rule.to_json()}) for rule in rules]
    [False, True]
    """
    exits = exits_in(config, source)
    return exits is not None and exits.threshold is not None


def usual_layers(depth: int) -> tuple[int, ...]:
    """Return where heads stand unless told otherwise: after a third and after two thirds of the layers.

    >>> usual_layers(12), usual_layers(6), usual_layers(2), usual_layers(1)
    ((4, 8), (2, 4), (1,), ())
    """
    return tuple(sorted({round(depth * third / 3) for third in (1, 2)} & set(range(1, depth))))


def share_words(layers: Sequence[int], shares: Sequence[float]) -> str:
    """Say how many texts leave where.

    Args:
        layers: After how many layers each inner head stands.
        shares: Share of the texts that each head answers, the last layer's at the end.

    >>> share_words([2, 4], [0.61, 0.2, 0.19])
    '61 % after layer 2, 20 % after layer 4, 19 % at the end'
    """
    exit_names = [*(f"after layer {layer}" for layer in layers), "at the end"]
    return ", ".join(f"{100 * share:.0f} % {exit_name}" for share, exit_name in zip(shares, exit_names, strict=True))


def answering_heads(exits: EarlyExits, logits: np.ndarray) -> np.ndarray:
    """Return which head answers each text [rows]; the last one if no other is sure.

    Args:
        exits: The rule.
        logits: Of all heads, the last layer's at the end [heads, rows, classes].
    """
    from scipy.special import log_softmax, softmax  # takes a tenth of a second to load

    inner = logits[:-1]
    if exits.threshold is None:
        return np.full(logits.shape[1], len(inner))
    if exits.criterion == "confidence":
        sure = softmax(inner, axis=-1).max(axis=-1) >= exits.threshold
    elif exits.criterion == "entropy":
        logs = log_softmax(inner, axis=-1)
        sure = -(np.exp(logs) * logs).sum(axis=-1) <= exits.threshold
    else:
        sure = agreements(inner.argmax(axis=-1)) >= exits.threshold
    never = np.ones((1, logits.shape[1]), dtype=bool)
    heads: np.ndarray = np.concatenate([sure, never]).argmax(axis=0)
    return heads


def agreements(classes: np.ndarray) -> np.ndarray:
    """Count for each head how many in a row before it gave the same answer [heads, rows].

    >>> agreements(np.array([[0], [0], [0], [1]])).ravel().tolist()
    [0, 1, 2, 0]
    """
    counts = np.zeros(classes.shape, dtype=np.int64)
    for head in range(1, len(classes)):
        counts[head] = np.where(classes[head] == classes[head - 1], counts[head - 1] + 1, 0)
    return counts


def thresholds(criterion: Criterion, heads: int, classes: int) -> list[float]:
    """Return the thresholds that are tried, the strictest first; fixed, whatever the texts are.

    Args:
        criterion: By what a head is sure.
        heads: Number of inner heads.
        classes: Number of classes.

    >>> thresholds("patience", 4, 2)
    [3.0, 2.0, 1.0]
    """
    if criterion == "confidence":
        return list(CONFIDENCES)
    if criterion == "entropy":
        return [round(share * float(np.log(classes)), 6) for share in ENTROPIES]
    return [float(count) for count in range(heads - 1, 0, -1)]


class FittedExits(NamedTuple):
    """The rule that was found, and what it does on the texts it was found on.

    Attributes:
        exits: The rule.
        heads: Which head answers each text [rows].
        changed: How many answers differ from the last head's.
        highest: Upper bound of the share of changed answers, which holds with probability ``SURE``.
    """

    exits: EarlyExits
    heads: np.ndarray
    changed: int
    highest: float

    @property
    def shares(self) -> list[float]:
        """Share of the texts that each head answers, the last layer's at the end."""
        counts = np.bincount(self.heads, minlength=len(self.exits.layers) + 1)
        return [float(count) / len(self.heads) for count in counts]

    @property
    def leaving(self) -> int:
        """How many texts an inner head answers."""
        return int((self.heads < len(self.exits.layers)).sum())

    def fact(self, split: str) -> Measurement:
        """Return the share of texts that an inner head answers, with all that the rule does.

        Args:
            split: Where the texts are from.
        """
        count = len(self.heads)
        detail = {**self.exits.to_json(), "shares": self.shares, "changed": self.changed, "highest": self.highest}
        return Measurement.of(EARLY_EXITS, wilson(self.leaving, count), n=count, split=split, detail=detail)


def fit_exits(exits: EarlyExits, logits: np.ndarray, most_changed: float) -> FittedExits:
    """Find the most lenient threshold of which it is shown that it changes no more answers than allowed.

    Thresholds of a fixed list are tested from the strictest on, and the first that is not shown to hold ends the
    search. So the one that is kept holds with the stated confidence although many were looked at (fixed-sequence
    testing, Angelopoulos et al., 2021, arXiv:2110.01052, as in CALM). A share holds if its one-sided bound by Clopper
    and Pearson does, which is exact for rare changes.

    Args:
        exits: Where heads stand, and by what they are sure.
        logits: Of all heads on texts that were not trained on, the last layer's at the end [heads, rows, classes].
        most_changed: Largest share of answers that may differ from the last head's.

    Returns:
        The rule; its threshold is None if none is shown to hold, or no text leaves early: heads alone cost time.
    """
    last = logits[-1].argmax(axis=-1)
    never = EarlyExits(exits.layers, exits.criterion)
    accepted = without = FittedExits(never, answering_heads(never, logits), 0, 0.0)
    for threshold in thresholds(exits.criterion, len(exits.layers), logits.shape[-1]):
        tried = EarlyExits(exits.layers, exits.criterion, threshold)
        heads = answering_heads(tried, logits)
        answers = logits[heads, np.arange(logits.shape[1])].argmax(axis=-1)
        changed = int((answers != last).sum())
        highest = largest_share(changed, len(last), SURE)
        if highest > most_changed:
            break
        accepted = FittedExits(tried, heads, changed, highest)
    return accepted if accepted.leaving else without


def kind_problem(kind: TaskKind) -> str:
    """Return why nothing can be sure of the answers of a kind of task; empty where there is one class for a text."""
    if not (kind.numeric or kind.per_token or kind.vectors or kind.grouped or kind.several):
        return ""
    return f"lets a head answer that is sure of one class for a text; this task is a {kind.name}"


def length_problem(target: Target) -> str:
    """Return why models of which a text decides what is computed are not timed on a target; empty if they are."""
    if target.seq_len is None:
        return ""
    return (
        f"answers a text by what it says, and 'seq_len: {target.seq_len}' repeats the tokens of shorter texts, so the "
        "times would be those of texts that nobody sends; leave out seq_len"
    )


def refusal(info: StepInfo, traits: AbstractSet[str]) -> str:
    """Return why a step cannot follow early exits, or a cascade; empty if it can, or if there are none.

    Args:
        info: The step's declaration.
        traits: Traits of the candidate.
    """
    if "cascade" in traits and "onnx" in info.needs:
        return "is for single models, and a cascade holds two; put it before 'cascade'"
    changes = "torch" in info.needs and "onnx" not in info.gives and not info.keeps_model
    if "exits" not in traits or not changes:
        return ""
    return "would change the weights that the threshold of early exits was fitted for; put it before 'early_exit'"
