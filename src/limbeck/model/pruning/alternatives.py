"""Choose between several ways to meet one goal: each is carried out on a copy, and answers to held-out texts decide.

A narrower model keeps more heads and neurons for the same cost, and one that leaves tokens behind wider layers. What
that is worth is not in the scores of the parts, which are those of one width and one schedule; so every way is carried
out, repair included, and the answers of what comes of it are compared with those of the model that came in.

References: ZipLM (Kurtic et al., 2023, arXiv:2302.04089) tries pruned models to choose between distributions over
layers. Differs: what is tried are hidden widths and schedules of tokens, and a paired test decides.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck.core.statistics import probably_less, resampled_mean
from limbeck.core.token_schedule import schedule_problem
from limbeck.errors import InputError
from limbeck.model.output_losses import IGNORE, OutputLosses
from limbeck.model.pruning.config import AUTO, SLICES, TOKEN_RATIOS, PruningConfig, hidden_widths
from limbeck.model.pruning.hidden_width import refusal

if TYPE_CHECKING:
    from limbeck.core.cost import Cost
    from limbeck.core.shape import Shape
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.model.pruning.goals import CostGoal

M = TypeVar("M", bound="LimbeckForSequenceClassification")

SURE = 0.95
"""How probable it has to be that answers differ less before more is changed than has to be."""
WORSE_IN_A_ROW = 2
"""After so many in a row that are shown to be worse than the best, the rest, which changes still more, is left out."""


def alternatives(
    model: LimbeckForSequenceClassification, config: PruningConfig, *, elastic: bool = False
) -> list[PruningConfig]:
    """Return what is chosen from first, the least change first: hidden widths, else schedules; itself if neither is.

    Args:
        model: The model.
        config: The goal. A schedule that is chosen later is left out until then.
        elastic: Whether the model will be a super-network by then.

    Returns:
        Goals without that choice.

    Raises:
        InputError: The model cannot have such a width or schedule.
    """
    if config.tokens is not None and (message := _schedule_refusal(model, elastic=elastic)):
        raise InputError(message)
    if config.hidden is None:
        pass
    elif config.hidden != AUTO:
        if message := refusal(model, config.hidden, elastic=elastic):
            raise InputError(message)
    else:
        own, *narrower = hidden_widths(model.shape.hidden)
        refusals = {width: refusal(model, width, elastic=elastic) for width in narrower}
        possible = [own, *(width for width in narrower if refusals[width] is None)]
        if len(possible) == 1:
            few = f"hidden: {own} channels are too few to choose from"
            raise InputError(next(filter(None, refusals.values()), few))
        tokens = None if config.tokens == AUTO else config.tokens
        return [replace(config, hidden=width, tokens=tokens) for width in possible]
    if config.tokens != AUTO:
        return [config]
    return [replace(config, tokens=ratio) for ratio in (None, *TOKEN_RATIOS)]


def out_of_reach(
    model: LimbeckForSequenceClassification,
    config: PruningConfig,
    cost: Callable[[], Cost],
    teacher: Shape | None,
    *,
    ancestor: bool = False,
    elastic: bool = False,
) -> str | None:
    """Say why no cut of a model of this shape meets a goal; None if one may, for any width or schedule to choose from.

    Args:
        model: A model of that shape.
        config: The goal.
        cost: Returns the cost of shapes, which may have to be measured.
        teacher: Shape of its teacher; None if it is the model itself, or not known yet.
        ancestor: Whether the model was made from the teacher.
        elastic: Whether the model will be a super-network by then.
    """
    message: str | None = None
    try:
        for option in alternatives(model, config, elastic=elastic):
            if (message := option.out_of_reach(model.shape, cost, teacher, ancestor=ancestor)) is None:
                return None
    except InputError as error:
        return str(error)
    return message


def _schedule_refusal(model: LimbeckForSequenceClassification, *, elastic: bool) -> str | None:
    """Return why layers of the model cannot pass on fewer tokens; None if they can."""
    if elastic or model.space is not None:
        return SLICES
    problem = schedule_problem(model.shape, model.style)
    return f"tokens: {problem}" if problem else None


@dataclass(frozen=True, eq=False)
class AnswerComparison:
    """The answers of a model to texts, with which those of others are compared.

    Attributes:
        batches: The texts.
        answers: Logits of the model, batch by batch, on the CPU.
    """

    batches: Sequence[dict[str, Tensor]]
    answers: Sequence[Tensor]

    @classmethod
    def of(cls, model: LimbeckForSequenceClassification, batches: Sequence[dict[str, Tensor]]) -> AnswerComparison:
        """Let a model answer texts.

        Args:
            model: The model.
            batches: The texts.

        Raises:
            InputError: There are no texts.
        """
        if not batches:
            raise InputError(
                "answers to texts decide that are held out, a third of the training texts at most, and there are fewer "
                "than three; give more texts"
            )
        return cls(batches, list(_answers(model, batches)))

    def divergences(self, model: LimbeckForSequenceClassification, shape: Shape | None = None) -> np.ndarray:
        """Return how much the answers of another model differ, by text [texts], or query: :func:`divergences`.

        Args:
            model: The other model.
            shape: A smaller shape of it, such as one with a schedule of tokens.
        """
        losses = model.output_losses(self.answers[0].shape[-1])
        rows = zip(_answers(model, self.batches, shape), self.answers, self.batches, strict=True)
        by_row = torch.cat([divergences(losses, *row) for row in rows])
        labels = [batch["labels"] for batch in self.batches if "labels" in batch]
        return (losses.independent(by_row, labels) if labels else by_row).numpy()


@torch.no_grad()
def _answers(
    model: LimbeckForSequenceClassification, batches: Sequence[dict[str, Tensor]], shape: Shape | None = None
) -> Iterator[Tensor]:
    model.eval()
    for batch in batches:
        yield model.run({name: value.to(model.device) for name, value in batch.items()}, shape=shape)[0].float().cpu()


def divergences(losses: OutputLosses, logits: Tensor, reference: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Compute how much answers differ from those of a reference, as the model's kind of task compares them.

    Args:
        losses: Those of the outputs. Probabilities are compared by their Kullback-Leibler divergence in nats, numbers
            by the squared difference, vectors by its sum over components.
        logits: [texts, outputs], or [texts, seq, outputs] where tokens are answered.
        reference: Those of the reference.
        batch: The texts.

    Returns:
        [texts], 0 where answers are equal; of tokens the mean over those that have a label, or of all that are there.
    """

    def nats(first: Tensor, second: Tensor) -> Tensor:
        logs = (first.log_softmax(-1), second.log_softmax(-1))
        return F.kl_div(*logs, reduction="none", log_target=True).sum(-1)

    logits, reference = logits.double(), reference.double()  # in float32, small ones would be negative
    distances = losses.imitation(logits, reference, nats) - losses.imitation(reference, reference, nats)
    if logits.dim() == 2:
        return distances.flatten(1).sum(1) if distances.dim() > 1 else distances
    labels = batch.get("labels")
    counted = (batch["attention_mask"] > 0) if labels is None else (labels != IGNORE)
    by_token = distances.flatten(2).sum(2) if distances.dim() > 2 else distances
    return (by_token * counted).sum(1) / counted.sum(1).clamp_min(1)


@dataclass(frozen=True, eq=False)
class Outcome(Generic[M]):
    """What came of an option.

    Attributes:
        config: The option.
        model: The smaller model.
        divergences: How much its answers differ, by text [texts].
    """

    config: PruningConfig
    model: M
    divergences: np.ndarray

    @property
    def mean(self) -> float:
        """How much its answers differ, on average."""
        return float(self.divergences.mean())


@dataclass(frozen=True, eq=False)
class Chooser(Generic[M]):
    """Carries out several options, and keeps one.

    Attributes:
        model: The model, with the layers that stay; options are carried out on copies.
        goal: What the goal asks of the widths of layers.
        carry_out: Cuts a model, which is used up, as a goal without a choice says.
        comparison: Says how much answers differ.
        log: Called with a message for each option, and for each choice.
    """

    model: M
    goal: CostGoal
    carry_out: Callable[[M, PruningConfig], M]
    comparison: AnswerComparison
    log: Callable[[str], None]

    def chosen(self, config: PruningConfig) -> M:
        """Return the smaller model whose answers differ least; more is changed only where that is shown to be better.

        With a width and a schedule to choose, the width is chosen first, with all tokens, then the schedule.

        Args:
            config: The goal.

        Raises:
            InputError: No option meets the goal, or the model cannot have such a width or schedule.
        """
        best: Outcome[M] | None = None
        while config.chooses:
            best = self._best(alternatives(self.model, config), best)
            tokens = config.tokens if config.hidden == AUTO else best.config.tokens
            config = replace(best.config, tokens=tokens)
        assert best is not None, "there is nothing to choose"
        return best.model

    def _best(self, options: Sequence[PruningConfig], earlier: Outcome[M] | None) -> Outcome[M]:
        """Return what comes of the best option.

        Args:
            options: What to choose from, the least change first.
            earlier: What came of one of them, if it has been carried out.
        """
        name = "hidden" if len({option.hidden for option in options}) > 1 else "tokens"
        outcomes: list[Outcome[M]] = []  # the least change that meets the goal, and what differs least; no others
        tried, worse, shapes, message = 0, 0, set(), None
        for option in options:
            shape = option.shortened(self.model.shape)
            assert shape is not None, "options are possible"
            if shape in shapes:
                continue
            shapes.add(shape)
            if message := self._obstacle(option, shape, name):
                self.log(f"{_label(option, name)}: {message}")
                continue
            outcome = earlier if earlier and earlier.config == option else self._outcome(option, name)
            tried += 1
            worse = worse + 1 if outcomes and _differs_less(outcomes[-1], outcome) >= SURE else 0
            if not outcomes or outcome.mean < outcomes[-1].mean:
                outcomes = [*outcomes[:1], outcome]
            if worse == WORSE_IN_A_ROW:
                break
        if not outcomes:
            raise InputError(message or "there is nothing to choose from")
        return self._decided(outcomes[0], outcomes[-1], name, tried)

    def _obstacle(self, option: PruningConfig, shape: Shape, name: str) -> str | None:
        """Return why an option is not worth trying; None if it may be.

        Args:
            option: The option.
            shape: What it makes of the model before heads and neurons go.
            name: The field in which options differ; a schedule that is given is set whatever it costs.
        """
        if message := self.goal.out_of_reach(shape):
            return message
        before, cost = self.model.shape, self.goal.cost
        outside = set(cost(shape).detail.get("extrapolates", ())) - set(cost(before).detail.get("extrapolates", ()))
        if outside:
            return f"its latency would be a guess: beyond what was measured in {', '.join(sorted(outside))}"
        of_all = replace(option, tokens=None).shortened(before) if name == "tokens" else None
        if of_all is not None and shape != of_all and cost(shape).value >= cost(of_all).value:
            return "choosing tokens costs more than it saves"
        return None

    def _outcome(self, option: PruningConfig, name: str) -> Outcome[M]:
        """Carry out an option."""
        small = self.carry_out(copy.deepcopy(self.model), option)
        outcome = Outcome(option, small, self.comparison.divergences(small))
        mean, low, high = resampled_mean(outcome.divergences).interval
        count = len(outcome.divergences)
        interval = f"{mean:.3g} [{low:.3g}, {high:.3g}]"
        self.log(f"{_label(option, name)}: answers to {count} other texts differ by {interval}; {small.shape}")
        return outcome

    def _decided(self, simplest: Outcome[M], least: Outcome[M], name: str, tried: int) -> Outcome[M]:
        """Return the option whose answers differ least if that is shown to be better than the simplest, else that.

        Args:
            simplest: What came of the least change that meets the goal.
            least: What came of the option whose answers differ least.
            name: The field in which they differ.
            tried: How many were compared. Of as many that are no better, the best seems to be better with a
                probability of at most 1 - ``SURE`` (Bonferroni).
        """
        first, other = _label(simplest.config, name), _label(least.config, name)
        if least is simplest:
            self.log(f"{first}: its answers differ least of {tried}")
            return simplest
        probability, sure = _differs_less(least, simplest), 1 - (1 - SURE) / (tried - 1)
        shown = probability >= sure
        evidence = f"with probability {probability:.3f} {'>=' if shown else '<'} {sure:.4g}, as {tried} were compared"
        if shown:
            self.log(f"{other}: its answers differ less than those of {first} {evidence}")
            return least
        self.log(f"undecided: answers of {other} differ less than those of {first} {evidence}; {first} stays")
        return simplest


def _differs_less(first: Outcome[M], second: Outcome[M]) -> float:
    """Return the probability that the answers of the first differ less than those of the second."""
    return probably_less(first.divergences, second.divergences)


def _label(option: PruningConfig, name: str) -> str:
    """Return how an option reads: by the field in which options differ."""
    if name == "hidden":
        return f"hidden {option.hidden}"
    return "all tokens" if option.tokens is None else f"tokens {option.tokens:g}"
