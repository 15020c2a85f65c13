"""What techniques that imitate a teacher layer by layer have in common: their fields, and the terms made of them.

Light to import.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from limbeck.core.shape import canonical_json
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.core.shape import Shape

Layers = Literal["hidden", "attention", "relations"]


@dataclass(frozen=True)
class LayerDistillationConfig(TrainingConfig):
    """Hyper-parameters of learning from the inside of a teacher.

    Attributes:
        hidden_weight: Weight of the hidden states.
        attention_weight: Weight of the attention scores.
        relations_weight: Weight of the relations.
        hidden_loss: How hidden states are compared.
        attention_loss: How attention scores are compared.
        layer_map: Which teacher layer each student layer imitates; 'last': the last its last, the others none.
        relation_heads: Into how many heads relations are split; unless given, the student's number of heads, or if that
            does not divide both attention widths, the most up to 12 that do.
        shared_projection: One projection for all layers when widths differ, as TinyBERT has it.
    """

    hidden_weight: Annotated[float, Ge(0)] = 1.0
    attention_weight: Annotated[float, Ge(0)] = 1.0
    relations_weight: Annotated[float, Ge(0)] = 1.0
    hidden_loss: Literal["mse", "cosine"] = "mse"
    attention_loss: Literal["mse", "cosine"] = "mse"
    layer_map: Literal["uniform", "last_of_block", "top", "bottom", "dynamic", "last"] = "uniform"
    relation_heads: Annotated[int, Ge(1)] | None = None
    shared_projection: bool = False

    name: ClassVar[str]

    passes: ClassVar[float] = 4.0  # the teacher's forward pass comes on top

    def comparable(
        self, match: tuple[str, ...], candidate: Candidate, teacher: Candidate
    ) -> tuple[tuple[Any, ...], str]:
        """``match`` with relations for attention where heads differ in number, and a line that says so."""
        mine, theirs = (_heads(side.model.shape) for side in (candidate, teacher))
        if "attention" not in match or (mine == theirs and len(mine) == 1):
            return match, ""
        changed = dict.fromkeys("relations" if name == "attention" else name for name in match)
        return tuple(changed), (
            f"attention is compared as relations: the student has {_listed(mine)} heads, the teacher {_listed(theirs)}"
        )

    def layer_terms(
        self, match: Iterable[str], candidate: Candidate, teacher: Candidate
    ) -> dict[str, tuple[float, Any]]:
        """Weighted terms of a loss for those of ``match`` that look inside the models."""
        self._check_heads(match, candidate.model.shape, teacher.model.shape)
        makers = {"hidden": self._hidden, "attention": self._attention, "relations": self._relations}
        return {
            name: (getattr(self, f"{name}_weight"), make(candidate.model.shape, teacher.model.shape))
            for name, make in makers.items()
            if name in match
        }

    def _check_heads(self, match: Iterable[str], student: Shape, teacher: Shape) -> None:
        """Refuse to imitate attention where no layer has any."""
        for name in ("attention", "relations"):
            for side, shape in (("student", student), ("teacher", teacher)):
                if name in match and not any(layer.heads for layer in shape.layers):
                    raise InputError(
                        f"{self.name}: match '{name}' needs attention heads, but the {side} has none ({shape}); "
                        "use match 'hidden' or 'logits'"
                    )

    def _depths(self, mine: Any, theirs: Any) -> tuple[int, int]:
        if mine.depth > theirs.depth:
            raise InputError(
                f"{self.name}: the student has {mine.depth} layers, more than its teacher's {theirs.depth}"
            )
        return mine.depth, theirs.depth

    def _hidden(self, mine: Any, theirs: Any) -> Any:
        from limbeck.train.objectives import HiddenLoss

        widths = (mine.hidden, theirs.hidden)
        return HiddenLoss(self.hidden_loss, self.layer_map, self._depths(mine, theirs), widths, self.shared_projection)

    def _attention(self, mine: Any, theirs: Any) -> Any:
        from limbeck.train.objectives import AttentionLoss

        heads = [_heads(shape) for shape in (mine, theirs)]
        if heads[0] != heads[1] or len(heads[0]) > 1:
            raise InputError(
                f"{self.name}: match 'attention' needs equally many heads, but the student has {sorted(heads[0])} and "
                f"the teacher {sorted(heads[1])}; use match 'relations', which works for any widths"
            )
        mapping = "uniform" if self.layer_map == "dynamic" else self.layer_map
        return AttentionLoss(self.attention_loss, mapping, self._depths(mine, theirs))

    def _relations(self, mine: Any, theirs: Any) -> Any:
        from limbeck.train.objectives import RelationLoss

        sides = (mine, theirs)
        last = [max(i for i, layer in enumerate(shape.layers) if layer.heads) for shape in sides]
        widths = [shape.layers[i].heads * shape.head_dim for shape, i in zip(sides, last, strict=True)]
        own = mine.layers[last[0]].heads
        heads = self.relation_heads or (own if not any(width % own for width in widths) else most_heads(*widths))
        for side, width in zip(("student", "teacher"), widths, strict=True):
            if width % heads:
                valid = [n for n in range(1, min(widths) + 1) if not any(w % n for w in widths)]
                near = min(valid, key=lambda n: abs(n - heads))
                raise InputError(
                    f"{self.name}.relation_heads: {heads} does not divide the {side}'s attention width {width}; "
                    f"use {near}"
                )
        return RelationLoss(heads, last[0], last[1])


def _heads(shape: Shape) -> set[int]:
    """The numbers of heads that layers have."""
    return {layer.heads for layer in shape.layers}


def _listed(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def most_heads(*widths: int, most: int = 12) -> int:
    """The greatest number up to ``most`` that divides all widths, and with them all their multiples.

    >>> most_heads(384, 32), most_heads(768, 20), most_heads(384, 160)
    (8, 4, 8)
    """
    common = math.gcd(*widths)
    return max(number for number in range(1, most + 1) if common % number == 0)


def vocabulary_key(tokenizer: Any) -> str:
    """Digest of a tokenizer's tokens and their ids."""
    return hashlib.sha256(canonical_json(tokenizer.get_vocab()).encode()).hexdigest()[:16]


def same_tokens(candidate: Candidate, teacher: Candidate) -> bool:
    """Whether a teacher and its student have the same tokens."""
    mine, theirs = candidate.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    return bool(mine == theirs)


def reading(candidate: Candidate, teacher: Candidate) -> Candidate | None:
    """The teacher, reading the student's tokens; None where these are not all among its own."""
    from limbeck.model.vocabulary import with_vocabulary

    if same_tokens(candidate, teacher):
        return teacher
    model = with_vocabulary(teacher.model, teacher.tokenizer.get_vocab(), candidate.tokenizer.get_vocab())
    return None if model is None else replace(teacher, model=model, tokenizer=candidate.tokenizer)
