"""Distillation layer by layer: its hyper-parameters as a group of fields, and the loss terms built from them.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from annotated_types import Ge, Le

from limbeck.core.field_groups import without_effect
from limbeck.core.model import AnswersOnly
from limbeck.core.shape import short_key
from limbeck.core.step import Step
from limbeck.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck.core.candidate import Candidate
    from limbeck.core.shape import Shape
    from limbeck.train.distillation_losses import AttentionLoss, HiddenLoss, RelationLoss
    from limbeck.train.objectives import Term
    from limbeck.train.token_ranking import TokenRankingLoss

Layers = Literal["hidden", "attention", "relations", "token_ranking"]
Match = Literal["logits", "hidden", "attention", "relations", "token_ranking"]
LAYERS: tuple[str, ...] = get_args(Layers)

IMITATED: Mapping[tuple[str, ...], Set[str]] = {
    ("logits_weight", "temperature", "matryoshka"): {"logits"},
    ("hidden_weight",): {"hidden"},
    ("attention_weight",): {"attention"},
    ("relations_weight", "relation_heads"): {"relations", "attention"},  # of sides with other numbers of heads
    ("token_ranking_weight",): {"token_ranking"},
}
"""Fields that have an effect only where one of these parts is imitated."""


NO_TOKENS_RANKED = "token_ranking is for students whose layers pass on fewer tokens than they read"


def unused_weights(step: Step, match: Iterable[str]) -> list[str]:
    """Return a problem for each weight of a part that the step does not imitate, unless it is at its default."""
    given, problems = set(match), []
    for names, parts in IMITATED.items():
        if not parts & given:
            problems += without_effect(step, names, f"without {' or '.join(sorted(parts))} in match")
    return problems


def answers_only_problems(teacher: AnswersOnly, match: Iterable[str], logits_loss: str) -> list[str]:
    """Return why a student cannot learn in this way from a teacher that only gives answers.

    Args:
        teacher: What is known of the teacher.
        match: What is to be imitated.
        logits_loss: How logits are compared.
    """
    if inside := [part for part in match if part in LAYERS]:
        return [
            f"match: {', '.join(inside)} are inside the teacher, and '{teacher.source}' only gives answers: "
            f"{teacher.reason}; use match: [logits]"
        ]
    if teacher.probabilities and logits_loss == "mse":
        return [
            f"logits_loss: mse compares logits, and '{teacher.source}' gives probabilities, of which logits are known "
            "up to a constant; use kl"
        ]
    return []


@dataclass(frozen=True)
class LayerDistillationConfig:
    """How a student learns from the hidden layers of its teacher.

    Attributes:
        hidden_weight: Weight of the hidden states.
        attention_weight: Weight of the attention scores.
        relations_weight: Weight of the relations.
        token_ranking_weight: Weight of the ranking of tokens by layers that pass on fewer of them, which is to be that
            of the teacher's last layer.
        hidden_loss: How hidden states are compared.
        attention_loss: How attention scores are compared.
        layer_map: Which teacher layer each student layer imitates; 'last' compares only the two last layers.
        relation_heads: Number of relation heads; unless given, the student's number of heads, or if that does not
            divide both attention widths, the largest number up to 12 that does.
        shared_projection: One projection for all layers when widths differ, as in TinyBERT.
    """

    hidden_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    attention_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    relations_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    token_ranking_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    hidden_loss: Literal["mse", "cosine"] = "mse"
    attention_loss: Literal["mse", "cosine"] = "mse"
    layer_map: Literal["uniform", "last_of_block", "top", "bottom", "dynamic", "last"] = "uniform"
    relation_heads: Annotated[int, Ge(1), Le(10_000)] | None = None
    shared_projection: bool = False

    def comparable(
        self, match: tuple[Match, ...], candidate: Candidate, teacher: Candidate
    ) -> tuple[tuple[Match, ...], str]:
        """Replace attention by relations where numbers of heads differ, and leave a ranking out where no token goes.

        Args:
            match: What to imitate.
            candidate: The student.
            teacher: The teacher.

        Returns:
            ``match`` with what is changed, and a note that explains it; "" where nothing is changed.
        """
        notes = []
        if "token_ranking" in match and len(match) > 1 and not candidate.model.shape.tokens:
            match = tuple(name for name in match if name != "token_ranking")
            notes.append("no ranking of tokens is learned, as all of them go on")
        student_heads, teacher_heads = (_head_counts(side.model.shape) for side in (candidate, teacher))
        if "attention" in match and not (student_heads == teacher_heads and len(student_heads) == 1):
            match = tuple(dict.fromkeys("relations" if name == "attention" else name for name in match))
            notes.append(
                f"attention is compared as relations: the student has {_listed(student_heads)} heads, "
                f"the teacher {_listed(teacher_heads)}"
            )
        return match, "; ".join(notes)

    def terms(
        self, match: Iterable[str], candidate: Candidate, teacher: Candidate, step: str
    ) -> dict[str, tuple[float, Term]]:
        """Build the loss terms that compare hidden layers.

        Args:
            match: What to imitate; entries other than hidden layers are ignored.
            candidate: The student.
            teacher: The teacher.
            step: Name of the step, for messages.

        Returns:
            The terms by name, with their weights.

        Raises:
            InputError: The shapes of student and teacher cannot be compared in this way.
        """
        student, target = candidate.model.shape, teacher.model.shape
        _check_heads(match, student, target, step)
        _check_tokens(match, student, target, step)
        terms: dict[str, tuple[float, Term]] = {}
        if "hidden" in match:
            terms["hidden"] = (self.hidden_weight, self._hidden(student, target, step))
        if "attention" in match:
            terms["attention"] = (self.attention_weight, self._attention(student, target, step))
        if "relations" in match:
            terms["relations"] = (self.relations_weight, self._relations(student, target, step))
        if "token_ranking" in match:
            terms["token_ranking"] = (self.token_ranking_weight, _token_ranking(student, target, step))
        return terms

    def _hidden(self, student: Shape, teacher: Shape, step: str) -> HiddenLoss:
        from limbeck.train.distillation_losses import HiddenLoss

        widths, depths = (student.hidden, teacher.hidden), _depths(student, teacher, step)
        return HiddenLoss(self.hidden_loss, self.layer_map, depths, widths, self.shared_projection)

    def _attention(self, student: Shape, teacher: Shape, step: str) -> AttentionLoss:
        from limbeck.train.distillation_losses import AttentionLoss

        heads = [_head_counts(shape) for shape in (student, teacher)]
        if heads[0] != heads[1] or len(heads[0]) > 1:
            raise InputError(
                f"{step}: match 'attention' needs equally many heads, but the student has {sorted(heads[0])} "
                f"and the teacher {sorted(heads[1])}; use match 'relations', which works for any widths"
            )
        mapping = "uniform" if self.layer_map == "dynamic" else self.layer_map
        return AttentionLoss(self.attention_loss, mapping, _depths(student, teacher, step))

    def _relations(self, student: Shape, teacher: Shape, step: str) -> RelationLoss:
        from limbeck.train.distillation_losses import RelationLoss

        sides = (student, teacher)
        last = [max(i for i, layer in enumerate(shape.layers) if layer.heads) for shape in sides]
        widths = [shape.layers[i].heads * shape.head_dim for shape, i in zip(sides, last, strict=True)]
        own = student.layers[last[0]].heads
        heads = self.relation_heads or (own if not any(width % own for width in widths) else most_heads(*widths))
        for side, width in zip(("student", "teacher"), widths, strict=True):
            if width % heads:
                valid = [n for n in range(1, min(widths) + 1) if not any(w % n for w in widths)]
                near = min(valid, key=lambda n: abs(n - heads))
                raise InputError(
                    f"{step}.relation_heads: {heads} does not divide the {side}'s attention width {width}; use {near}"
                )
        return RelationLoss(heads, last[0], last[1])


def _check_heads(match: Iterable[str], student: Shape, teacher: Shape, step: str) -> None:
    """Refuse to imitate attention if no layer has any."""
    for name in ("attention", "relations"):
        for side, shape in (("student", student), ("teacher", teacher)):
            if name in match and not any(layer.heads for layer in shape.layers):
                raise InputError(
                    f"{step}: match '{name}' needs attention heads, but the {side} has none ({shape}); "
                    "use match 'hidden' or 'logits'"
                )


def _check_tokens(match: Iterable[str], student: Shape, teacher: Shape, step: str) -> None:
    """Refuse to compare attention where layers read fewer tokens than the other side's."""
    for side, shape in (("student", student), ("teacher", teacher)):
        if shape.tokens and (pairs := sorted({"attention", "relations"} & set(match))):
            raise InputError(
                f"{step}: match '{pairs[0]}' compares all pairs of tokens, and the {side}'s layers read fewer of them "
                f"({shape}); use match 'hidden' or 'logits'"
            )


def _token_ranking(student: Shape, teacher: Shape, step: str) -> TokenRankingLoss:
    from limbeck.train.token_ranking import TokenRankingLoss

    shares = tuple((index, left) for index, (read, left) in enumerate(student.token_shares) if left < read)
    if not shares:
        raise InputError(f"{step}: {NO_TOKENS_RANKED}, and those of {student} do not; put prune_tokens before it")
    judges = [index for index, layer in enumerate(teacher.layers) if layer.heads and layer.attention == "softmax"]
    if teacher.tokens or not judges:
        raise InputError(
            f"{step}: match 'token_ranking' imitates a teacher that attends to all tokens, unlike {teacher}; leave it "
            "out"
        )
    return TokenRankingLoss(shares, judges[-1])


def token_problems(match: Iterable[str], traits: Set[str]) -> list[str]:
    """Return what cannot be imitated by a student with these traits, as it leaves tokens behind, or as it does not."""
    if "fewer_tokens" not in traits:
        return [f"match: {NO_TOKENS_RANKED}; put prune_tokens before it"] if "token_ranking" in match else []
    return [
        f"match: '{name}' compares all pairs of tokens, and the student's layers may read fewer of them; use 'hidden' "
        "or 'logits'"
        for name in sorted({"attention", "relations"} & set(match))
    ]


def state_marks(match: Iterable[str], traits: Set[str]) -> dict[str, str]:
    """Return the mark in keys of results that learned hidden states of tokens that go on, and once of all tokens."""
    return {"states": "of tokens that go on"} if "hidden" in match and "fewer_tokens" in traits else {}


def _depths(student: Shape, teacher: Shape, step: str) -> tuple[int, int]:
    if student.depth > teacher.depth:
        raise InputError(f"{step}: the student has {student.depth} layers, more than its teacher's {teacher.depth}")
    return student.depth, teacher.depth


def _head_counts(shape: Shape) -> set[int]:
    """Return the different numbers of heads of the layers."""
    return {layer.heads for layer in shape.layers}


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def most_heads(*widths: int, most: int = 12) -> int:
    """Return the largest number up to ``most`` that divides all widths, and so all their multiples.

    >>> most_heads(384, 32), most_heads(768, 20), most_heads(384, 160)
    (8, 4, 8)
    """
    common = math.gcd(*widths)
    return max(number for number in range(1, most + 1) if common % number == 0)


def vocabulary_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash a tokenizer's tokens and their ids."""
    return short_key(tokenizer.get_vocab())


def same_tokens(candidate: Candidate, teacher: Candidate) -> bool:
    """Check whether a student and its teacher have the same vocabulary."""
    return bool(candidate.tokenizer.get_vocab() == teacher.tokenizer.get_vocab())


def check_vocabulary(candidate: Candidate, teacher: Candidate, step: str, advice: str = "") -> None:
    """Refuse a student and a teacher that do not read the same tokens.

    Args:
        candidate: The student.
        teacher: The teacher.
        step: Name of the step, for messages.
        advice: What to do instead.

    Raises:
        InputError: Their vocabularies differ.
    """
    if not same_tokens(candidate, teacher):
        raise InputError(f"{step}: the teacher has another vocabulary than the student{advice}")


def adapt_vocabulary(candidate: Candidate, teacher: Candidate) -> Candidate | None:
    """Return the teacher with the student's vocabulary; None if it lacks some of the student's tokens."""
    from limbeck.model.vocabulary import with_vocabulary

    if same_tokens(candidate, teacher):
        return teacher
    model = with_vocabulary(teacher.model, teacher.tokenizer.get_vocab(), candidate.tokenizer.get_vocab())
    return None if model is None else replace(teacher, model=model, tokenizer=candidate.tokenizer)
