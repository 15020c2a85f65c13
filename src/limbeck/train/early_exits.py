"""Train the heads after inner layers together with the last one, and fit when they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from limbeck.core.early_exits import SURE, EarlyExits, FittedExits, fit_exits, share_words
from limbeck.data.batching import Encoded, collate, encode, length_batches
from limbeck.model.early_exits import all_logits, set_rule
from limbeck.train.objectives import Batch, Loss, Outputs, Progress, TeacherCall, WeightedTerms, weighted_sum

if TYPE_CHECKING:
    from limbeck.core.candidate import Candidate
    from limbeck.model.encoder import LimbeckForSequenceClassification


@dataclass(frozen=True)
class JointHeads:
    """The loss of all heads: their mean, weighted by how many layers stand before each (PABEE's equation 3).

    Heads learn from the labels, and from the logits of the teacher. Without a teacher, inner heads learn from those of
    the last head, which learns from the labels alone (Zhang et al., 2019, arXiv:1905.08094).

    Attributes:
        terms: Terms that compare the logits of one head with labels and with the teacher's logits, with their weights;
            ``logits`` is the one that needs a teacher.
        depths: How many layers stand before each head, the last one's at the end.
        teacher: The teacher, if there is one.
    """

    terms: WeightedTerms
    depths: tuple[int, ...]
    teacher: TeacherCall | None = None

    def __call__(self, model: LimbeckForSequenceClassification, batch: Batch, progress: Progress) -> Iterator[Loss]:
        """Yield one loss.

        Args:
            model: The model with its heads.
            batch: The inputs and labels.
            progress: Ignored.
        """
        logits = all_logits(model, batch)
        teacher = Outputs(logits[-1].detach(), {}) if self.teacher is None else self.teacher(batch, ())
        alone = {name: term for name, term in self.terms.items() if name != "logits"}
        losses = []
        for own in logits:
            terms = alone if own is logits[-1] and self.teacher is None else self.terms
            losses.append(weighted_sum(terms, Outputs(own, {}), teacher, batch)[0])
        weights = torch.tensor(self.depths, dtype=losses[0].dtype, device=losses[0].device)
        total = (torch.stack(losses) * weights).sum() / weights.sum()
        yield Loss(total, {f"after_{depth}": loss.detach() for depth, loss in zip(self.depths, losses, strict=True)})


@torch.inference_mode()
def head_answers(model: LimbeckForSequenceClassification, encoded: Encoded, batch_size: int = 32) -> np.ndarray:
    """Answer texts by every head, the last layer's at the end [heads, rows, classes].

    Args:
        model: A model with early exits.
        encoded: The texts.
        batch_size: Texts answered together.
    """
    model.eval()
    rows: list[np.ndarray] = [np.empty(0)] * len(encoded)
    for indices in length_batches(encoded.lengths, batch_size):
        batch = {name: value.to(model.device) for name, value in collate(encoded, indices).items()}
        logits = torch.stack(all_logits(model, batch), dim=1).float().cpu().numpy()
        for index, row in zip(indices, logits, strict=True):
            rows[index] = row
    return np.stack(rows, axis=1)


def fit_rule(candidate: Candidate, exits: EarlyExits, most_changed: float, log: Callable[[str], None]) -> FittedExits:
    """Find on validation texts when inner heads answer, and set that in the model, in place.

    Args:
        candidate: The model with trained heads.
        exits: Where they stand, and by what they are sure.
        most_changed: Largest share of answers that may differ from the last head's.
        log: Called with what was found.
    """
    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    fitted = fit_exits(exits, head_answers(candidate.model, encoded), most_changed)
    set_rule(candidate.model, fitted.exits)
    count = len(fitted.heads)
    if fitted.exits.threshold is None:
        log(
            f"no head answers early: of {count:,} validation texts none leaves at a threshold of which they show "
            f"({SURE:.0%}) that at most {100 * most_changed:g} % of the answers change; give more texts, a larger "
            "max_changed, or longer training"
        )
        return fitted
    leaving = share_words(exits.layers, fitted.shares)
    log(
        f"{exits.criterion} {fitted.exits.threshold:g}: {leaving}; {fitted.changed} of {count:,} validation answers "
        f"in floating point change, with {SURE:.0%} confidence at most {100 * fitted.highest:.2f} % of all"
    )
    return fitted
