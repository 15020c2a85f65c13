"""Fine-tune on the labels of the task.

Reference: Devlin et al., 2019, arXiv:1810.04805. Differs: length-bucketed batches, several evaluations an epoch, and
the best checkpoint is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.step import RunContext, Technique, step
from limbeck.train.config import NO_LABELS, TRAINING, TrainingConfig, weight_problems
from limbeck.train.equal_labels import pair_loss_problem, rank_loss_problem

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.core.task import Task
    from limbeck.core.task_kind import TaskKind
    from limbeck.train.objectives import Term


@step(
    replace(
        TRAINING,
        name="finetune",
        label="fine-tuned",
        version=4,
        needs={"torch"},
        gives={"teacher"},
        reads={"seed"},
        standardizes=True,
        added=TRAINING.added | {"class_weights", "focal_gamma", "pair_loss", "matryoshka", "rank_loss"},
        example={"num_train_epochs": 2, "learning_rate": 1e-3},
    )
)
class Finetune(Technique):
    """Fine-tune all weights on the task's labels; later steps take the result as their teacher.

    Attributes:
        training: How the model is trained.
        linear_probe: Start a new output layer from the one that fits the labels best while the encoder stays as it is
            (Kumar et al., 2022), in place of random weights. Has no effect on vectors and rerankers.
        keep: The best weights alone, or beside them epoch checkpoints, from before the first epoch and after every
            one, which 'linearize' may follow. Each takes as much disk as the model.
        class_weights: Weight of every label in the loss: 'none', 'balanced' (rare labels count as much as frequent
            ones; positives as much as negatives where there are several labels), or numbers in the order of the labels.
        focal_gamma: Focus of the focal loss on texts that are still wrong; 0 for plain cross-entropy, 2 is customary.
        pair_loss: Of vectors, what pairs teach: the order of their scores (CoSENT), a cosine for each score, or that
            both texts belong together and other texts of the batch do not.
        matryoshka: Of vectors, numbers of leading components that are to be vectors of their own; none unless given.
        rank_loss: Of documents for a query, what scores teach: whether a document is relevant (binary), which ones of
            the request come first (listwise, whose batches are requests), or the score itself (pointwise, for scores
            of a teacher).
    """

    training: TrainingConfig = group(default=TrainingConfig())
    linear_probe: bool = True
    keep: Literal["best", "every_epoch"] = "best"
    class_weights: Literal["none", "balanced"] | tuple[Annotated[float, Ge(0), Le(1_000_000)], ...] = "none"
    focal_gamma: Annotated[float, Ge(0), Le(100)] = 0.0
    pair_loss: Literal["cosent", "cosine", "contrastive"] = "cosent"
    matryoshka: tuple[Annotated[int, Ge(1), Le(100_000)], ...] = ()
    rank_loss: Literal["binary", "listwise", "pointwise"] = "binary"

    def keeps_epochs(self) -> bool:
        """Return whether the result comes with the weights of every epoch."""
        return self.keep == "every_epoch"

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Estimate the time of the training.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        return self.training.estimated_seconds(shape, rows, tokens)

    def kind_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return why the labels of a kind of task cannot be weighted, or compared as vectors."""
        given = {"pair_loss": self.pair_loss != "cosent", "matryoshka": bool(self.matryoshka)}
        unused = {} if kind.vectors else {name: "is for vectors of pairs" for name, set_ in given.items() if set_}
        if self.rank_loss != "binary" and not kind.grouped:
            unused["rank_loss"] = "is for documents that are ranked for a query"
        return unused | weight_problems(kind, self.class_weights, self.focal_gamma)

    def file_problems(self) -> list[str]:
        """Return that several processes, each with some rows of a batch, cannot compare the documents of a request."""
        from limbeck.distributed import context as processes

        if self.rank_loss != "listwise" or processes.count() == 1:
            return []
        return [f"rank_loss: listwise compares whole requests, which one process can; {processes.count()} were started"]

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that there is nothing to learn from without labels."""
        return {"": f"{NO_LABELS}; use 'distill', which learns from the answers of 'teacher: MODEL'"}

    def equal_label_problems(self, task: Task) -> dict[str, str]:
        """Return why the labels cannot be learned by these losses."""
        kind, labels = task.task_kind, task.split("train").labels
        if not (kind.vectors or kind.grouped):
            return {}
        if kind.grouped:
            name, reason = "rank_loss", rank_loss_problem(self.rank_loss, [gain for _, gain, _ in labels])
        else:
            name, reason = "pair_loss", pair_loss_problem(self.pair_loss, labels)
        return {name: reason} if reason else {}

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the candidate with trained weights."""
        from limbeck.train.finetuning import needs_probe, save_epochs, target_scale, train_on_task
        from limbeck.train.objectives import Weighted
        from limbeck.train.pair_loss import PairLoss
        from limbeck.train.rank_loss import RankLoss
        from limbeck.train.task_loss import task_loss

        loss: Term
        if candidate.task.task_kind.vectors:
            scores = candidate.task.split("train").labels
            loss = PairLoss.of(self.pair_loss, scores, self.matryoshka, candidate.model.width)
        elif candidate.task.task_kind.grouped:
            loss = RankLoss(self.rank_loss)
        else:
            loss = task_loss(candidate.model, candidate.task, self.class_weights, self.focal_gamma)
        by_request = isinstance(loss, RankLoss) and loss.by_request
        objective, scale = Weighted({"task": (1.0, loss)}), target_scale(candidate.task)
        probe = self.linear_probe and needs_probe(candidate)
        train = partial(train_on_task, candidate, objective, self.training, context, scale=scale)
        if self.keep == "best":
            train(by_request=by_request, linear_probe=probe)
            yield replace(candidate, folder=None)
            return
        with save_epochs(candidate.model, self.training.num_train_epochs, context.scratch, scale) as (
            after_step,
            epoch_checkpoints,
        ):
            train(after_step=after_step, by_request=by_request, linear_probe=probe)
            # a training that stopped early has no checkpoints of its last epochs
            yield replace(
                candidate, folder=None, epoch_checkpoints=tuple(path for path in epoch_checkpoints if path.exists())
            )
