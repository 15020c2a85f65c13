"""Let a smaller model answer the texts that it is sure of, and a larger one the others.

References: cascades of classifiers (Viola and Jones, 2001, doi:10.1109/CVPR.2001.990517); of trained models, by the
confidence of the smaller (Wang et al., 2020, arXiv:2012.01988); FrugalGPT (Chen et al., 2023, arXiv:2305.05176).
Differs: the two are models of one run, so a text is tokenized once and both lie in one ONNX graph; the threshold is not
learned or tried by hand, but tested on validation texts so that a stated share of changed answers holds with 95 %
confidence (as in CALM, Schuster et al., 2022, arXiv:2207.07061); and a pair is taken only if neither a single model nor
another pair is both better and faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Gt, Le

from limbeck.core.acceptance import with_facts
from limbeck.core.candidate import Candidate, Stored
from limbeck.core.cascade import Criterion
from limbeck.core.combination import Combination, Pair
from limbeck.core.early_exits import kind_problem, length_problem
from limbeck.core.step import RunContext, Step, StepInfo, step
from limbeck.errors import InputError, nearest
from limbeck.measure.cascades import SPLIT, cascade_fact, check_answers, find_pairs, fit, front_of
from limbeck.storage.drafts import process_folder
from limbeck.train.config import forward_seconds

if TYPE_CHECKING:
    from limbeck.core.measurement import Measurement
    from limbeck.core.shape import Shape
    from limbeck.core.target import Target
    from limbeck.core.task_kind import TaskKind
    from limbeck.model.onnx.onnx_model import OnnxModel


@step(
    StepInfo(
        "cascade",
        needs={"onnx"},
        gives={"cascade"},
        reads={"target", "partner"},
        neutral={"most"},
        keeps_shape=True,
        example={"max_changed": 100, "criterion": "entropy"},
    )
)
class Cascade(Combination):
    """Combine two exported models to one: the smaller answers the texts that it is sure of, the larger the others.

    Pairs are chosen among the candidates that none beats in both quality and latency, so these are measured before. All
    candidates stay beside the cascades. The mean time of a call falls; a text that goes on pays for both models.

    Attributes:
        criterion: By what the smaller model is sure: its largest probability (confidence), or the entropy of its
            probabilities.
        max_changed: Largest share of answers (most probable classes) that may differ from the larger model's, in per
            cent; it is shown to hold with 95 % confidence on validation, or the two make no cascade.
        most: How many cascades are made at most; those first that save the largest share of their larger model's time.
        partner: Key of the smaller model; any of the candidates unless given.
    """

    criterion: Criterion = "confidence"
    max_changed: Annotated[float, Gt(0), Le(100)] = 1.0
    most: Annotated[int, Ge(1), Le(100)] = 3
    partner: str = ""

    def pairs(self, candidates: Sequence[Stored], context: RunContext) -> list[Pair]:
        """Return the pairs that are expected to pay."""
        records = {each.key: each.record for each in candidates if each.record is not None}
        single = [record for record in records.values() if "onnx" in record.traits and "cascade" not in record.traits]
        if self.partner and self.partner not in {record.key for record in single}:
            suggestion = nearest(self.partner, [record.key for record in single])
            raise InputError(f"cascade: partner: no exported candidate has the key {self.partner}; {suggestion}")
        if problem := length_problem(context.target):
            context.log(f"no cascade: it {problem}")
            return []
        if any(record.fact("quality") and not record.fact("quality", SPLIT) for record in single):
            context.log(f"no cascade: {SPLIT} decides which models are tried; put quality: {{split: {SPLIT}}} first")
            return []
        front = front_of(candidates, with_facts(single, ("quality", "latency_p50"), "cascade"))
        if len(front) < 2:
            context.log(
                f"no cascade: it takes two exported models that no other beats in both quality and latency, and there "
                f"is {len(front) or 'none'}"
            )
            return []
        paying_pairs = find_pairs(front, self.max_changed, self.criterion, context)
        chosen = [pair for pair in paying_pairs if self.partner in ("", pair.small)][: self.most]
        for pair in chosen:
            context.log(str(pair))
        if not chosen:
            context.log(
                f"no cascade: of {len(front)} exported models none before another is expected to save time with at "
                f"most {self.max_changed:g} % of the answers changed"
            )
        return [Pair(pair.large, pair.small) for pair in chosen]

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate behind its smaller partner."""
        assert context.partner is not None
        folder = (context.scratch or process_folder()) / "cascade"
        small, rule = context.partner.open(), (self.max_changed, self.criterion)
        model, fact = cascade(small, candidate, folder, *rule, context)
        yield replace(candidate, model=model, folder=None, facts=(fact,))

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that a model is sure of classes alone."""
        problem = kind_problem(kind)
        return {"": problem} if problem else {}

    def target_problems(self, target: Target, others: Sequence[Step]) -> dict[str, str]:
        """Return that the time of texts that nobody sends says nothing."""
        problem = length_problem(target)
        return {"": problem} if problem else {}

    def required_splits(self) -> tuple[str, ...]:
        """Return the split that pairs are chosen on."""
        return (SPLIT,)

    def result_count(self) -> int:
        """Return how many cascades are made at most."""
        return self.most

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: one answer for each text, if none are kept.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return forward_seconds(shape, rows.get(SPLIT, 0), tokens)


def cascade(
    small: Candidate, large: Candidate, folder: Path, max_changed: float, criterion: Criterion, context: RunContext
) -> tuple[OnnxModel, Measurement]:
    """Write two exported models as one, with a rule that is fitted on validation texts.

    Args:
        small: The smaller model.
        large: The larger one, with the same tokenizer.
        folder: Where to write the graph.
        max_changed: As for :class:`Cascade`.
        criterion: As for :class:`Cascade`.
        context: Has the target, keeps answers, and is told of the rule.

    Returns:
        The model, and the fact that says what the rule does. The larger model's tokenizer then cuts texts where the
        model with fewer positions does.

    Raises:
        InputError: They have other labels, read different tokens, or no threshold is shown to hold.
        LimbeckError: The graph gives other answers than the two models.
    """
    from limbeck.model.onnx.cascade import write_cascade

    fitted = fit(small, large, max_changed, criterion, context)
    assert fitted.exits.threshold is not None
    model = write_cascade(small.model, large.model, folder, threshold=fitted.exits.threshold, criterion=criterion)
    difference = check_answers(model, small, large, fitted.exits)
    model.close()
    large.tokenizer.model_max_length = min(large.tokenizer.model_max_length, small.tokenizer.model_max_length)
    sizes = f"{model.size_bytes / 1e6:.1f} MB, of which the smaller model {small.model.size_bytes / 1e6:.1f} MB"
    context.log(f"{sizes}; it answers as the two do, largest difference {difference:.1e}")
    return model, cascade_fact(fitted)
