"""Train a super-network on plain text, before any task: slices of many shapes become small pretrained models.

References: AutoTinyBERT (Yin et al., 2021, arXiv:2107.13686), which Bigger&Faster (arXiv:2209.12127) builds on: one
random slice a step imitates last hidden states and last attention of a frozen pretrained teacher on a corpus, or is a
masked language model of it (Devlin et al., 2019, arXiv:1810.04805). Differs: both together, if asked for; the sandwich
rule; attention is compared as relations; heads, neurons and channels are sorted by the size of their weights first,
because no labels say what matters; hidden tokens are drawn anew at every step.

    model: bert-base-uncased
    task: sst2
    steps:
      - finetune: {}                                     # the teacher of 'supernet', not of pretrain_supernet
      - pretrain_supernet: {corpus: books.txt, layers: [2, 8], hidden: [128, 768], heads: [2, 12], ffn: [128, 3072]}
      - supernet: {epochs: 1}                            # the same space, on the task: 'search' needs trained answers
      - search: {latency_ms: 5.0}
      - distill: {match: [logits, hidden]}

What comes out has no answers to judge slices by, so ``search`` is refused until ``supernet`` trained them. A corpus is
what ``pretrain_distill`` takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.step import RunContext, Step, problems_of, step
from limbeck.errors import InputError
from limbeck.train.config import TrainingConfig
from limbeck.train.pretraining import ON_TEXT, PRETRAINING, PretrainingConfig, check_sides, train_on_text
from limbeck.train.supernet_config import ChannelOrder, SupernetConfig

if TYPE_CHECKING:
    from limbeck.core.shape import Shape
    from limbeck.model.mlm_head import LanguageHead


@step(
    replace(
        PRETRAINING,
        name="pretrain_supernet",
        formerly="general_supernet",
        label="made elastic on text",
        version=3,
        needs={"torch"},
        drops={"elastic"},
        reads={"seed", "teacher"},
        presets={
            "autotinybert": {"rule": "single", "samples": 1, "match": ["hidden", "relations"], "num_train_epochs": 5},
            "autotinybert-mlm": {"rule": "single", "samples": 1, "match": ["mlm"], "num_train_epochs": 5},
        },
        example={
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "max_length": 32,
            "held_out": 0.1,
            "layers": (1, 2),
            "hidden": (16, 32),
            "heads": (1, 4),
            "ffn": (32, 64),
            "samples": 1,
            "match": ("mlm", "hidden", "relations"),
        },
    )
)
class PretrainSupernet(TechniqueWithGoal):
    """Train the candidate on running text so that its slices of all shapes of a space are good pretrained models.

    They imitate the model that the recipe began with, are masked language models, or both. A range that is not given
    stays at the candidate's own value; without any, depth, hidden width and heads go down to a third of it and neurons
    to a sixth. The task comes after: 'supernet' without ranges goes on with the same space. The weights after the last
    step are kept, unless ``evaluations_per_epoch`` asks for those with the least loss on the held-out part.

    Attributes:
        training: How the model is trained.
        pretraining: The corpus, and the model to imitate.
        slices: The space of slices, and how they learn.
        match: What is learned: last hidden states and relations of the last attention of the pretrained model, and mlm,
            the tokens that are hidden from all models then.
        mlm_weight: Weight of the masked language model.
        mlm_probability: Share of the tokens that are hidden (80 % become the mask, 10 % another token, 10 % stay).
    """

    training: TrainingConfig = group(default=ON_TEXT)
    pretraining: PretrainingConfig = group(default=PretrainingConfig())
    slices: SupernetConfig = group(default=SupernetConfig())
    match: Annotated[tuple[Literal["mlm", "hidden", "relations"], ...], MinLen(1)] = ("hidden", "relations")
    mlm_weight: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    mlm_probability: Annotated[float, Gt(0), Lt(1)] = 0.15

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float | None:
        """Estimate the time of training on the task's own texts; None for a corpus, which would have to be read.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        if self.pretraining.corpus is not None:
            return None
        return self.slices.relative_cost * self.training.estimated_seconds(shape, rows, tokens)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Explain why the model cannot become a super-network; None if it can.

        Args:
            candidate: A model of the shape that will come in.
            context: Services of the run.
            earlier: The steps in between.
        """
        return self.slices.impossible(candidate.model, "pretrain_supernet")

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the super-network, without the head of the language model; its configuration says of which space."""
        from accelerate.utils import set_seed

        from limbeck.data.corpus.masking import Masking
        from limbeck.model.pruning.importance import magnitude
        from limbeck.model.pruning.subnetwork import extract
        from limbeck.train.mlm import LanguageLoss, OnMasked
        from limbeck.train.objectives import LiveTeacher, Objective
        from limbeck.train.supernet_loss import SandwichLoss

        if problems := problems_of(self):
            raise InputError(f"pretrain_supernet: {problems[0]}")
        masking = Masking.of(candidate.tokenizer, self.mlm_probability, context.seed) if "mlm" in self.match else None
        pretraining, slices = self.pretraining, self.slices
        teacher = pretraining.teacher(candidate, context, "pretrain_supernet") if {*self.match} - {"mlm"} else None
        check_sides(candidate, teacher, pretraining.max_length, "pretrain_supernet")
        space = slices.space(candidate.model.shape, "pretrain_supernet")
        context.log(f"{space.size:,} slices, from {space.smallest} to {space.largest}")
        set_seed(context.seed)  # what is new is drawn here, before the loop seeds itself
        head = self.head(candidate, context) if masking is not None else None
        trained_order = ChannelOrder.of(candidate.model)
        order = slices.arrange(candidate.model, trained_order, space, lambda model: magnitude(model, ()))
        if head is not None and len(order.channels) == candidate.model.shape.hidden:  # fewer: it is a new one
            head.permute_channels(order.channels)
        model = extract(candidate.model, space.largest)
        terms = {} if teacher is None else slices.slice_terms(self.match, teacher.model, order)
        if head is not None:
            terms["mlm"] = (self.mlm_weight, LanguageLoss(head, model.encoder.embeddings.word))
        guide = None if teacher is None else LiveTeacher(teacher.model.eval())
        objective: Objective = SandwichLoss(terms, guide, space, slices.rule, slices.samples, seed=context.seed)
        if masking is not None:
            objective = OnMasked(objective, masking)
        candidate = replace(candidate, model=model, folder=None)
        train_on_text(candidate, objective, self.training, pretraining, context)
        order.mark(model, answers=False)
        yield candidate

    def head(self, candidate: Candidate, context: RunContext) -> LanguageHead:
        """Return the language-model head: the pretrained model's if it fits, else a new one."""
        from limbeck.model.mlm_head import language_head

        record = context.teacher.record if context.teacher is not None else None
        source = self.pretraining.pretrained or (record.parameters.get("source") if record is not None else None)
        head, note = language_head(candidate.model, source)
        context.log(note)
        return head
