"""Replace softmax attention of a pretrained encoder by a core of linear cost, guided by a softmax teacher.

References: He and Garner, 2025, arXiv:2410.06846 (conversion of RoBERTa to Linformer; the five guides); Wang et al.,
2020, arXiv:2006.04768 (Linformer). Differs: any core of ``model/attention.py``, layer by layer; projections begin as
averages of neighbours, so that the converted model answers much as before (``init: normal`` draws them, as the study
does); losses leave padding out; the guide's hidden states are compared as they are without dropout; a run resumes with
its teacher.

    steps:
      - finetune: {keep: every_epoch}
      - linearize: {attention: [linformer:256], guide: waypoint}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.shape import Shape, attention_core, skipped_positions
from limbeck.core.step import RunContext, Step, Technique, step
from limbeck.errors import InputError
from limbeck.train.config import TRAINING, TrainingConfig
from limbeck.train.layer_distillation import adapt_vocabulary

if TYPE_CHECKING:
    from limbeck.core.model import TrainableEncoder
    from limbeck.train.linearization import GuidedLoss

TAUGHT = ("target", "waypoint", "hybrid")
"""Guides that are a fine-tuned model."""


@step(
    replace(
        TRAINING,
        name="linearize",
        label="linearised",
        version=2,
        needs={"torch"},
        drops={"elastic"},
        reads={"seed", "teacher"},
        example={
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "attention": ("linformer:8",),
            "guide": "trajectory",
            "teacher_update_cycle": 2,
        },
    )
)
class Linearize(TrainingConfig, Technique):
    """Give the candidate other attention, keep all other weights, and train it on the task beside its guide.

    The loss is that of the task, ``alpha_output`` times that of the logits, and ``alpha_layer`` times the mean squared
    errors of the embeddings and of all layers, summed.

    Attributes:
        attention: Core of all layers, or one for each: linformer, window or kernel, with a size after a colon
            (linformer:256, window:64), or softmax, which stays.
        share: Projections of the length: two a layer (none; the Linformer paper calls that headwise), one a layer for
            keys and values (kv), one for all layers (layer), or two for every head (per_head).
        init: New projections average neighbours such that a text as long as the long ones of the task fills them
            (segments), or are drawn ~ N(0, 1).
        guide: Nothing (unguided), the fine-tuned teacher (target), a copy of the candidate that is fine-tuned beside it
            (trajectory), the teacher's epochs one after the other (waypoint), or the teacher for the first steps alone
            (hybrid).
        alpha_output: Weight of the logits.
        alpha_layer: Weight of the hidden states.
        temperature: Softens both distributions of the logits.
        start: Weights to begin with: those of the candidate, or those that the teacher had before it was fine-tuned;
            pretrained for guide: waypoint unless given, else candidate.
        freeze_steps: Steps in which only the new projections are trained.
        max_distill_steps: Steps after which hybrid goes on without its guide.
        teacher_learning_rate: Highest learning rate of a trajectory's teacher.
        teacher_update_cycle: Steps of the student to one of a trajectory's teacher.
        max_length: Tokens that the model should be able to read, if more than now.
    """

    attention: Annotated[tuple[str, ...], MinLen(1)] = ("linformer:256",)
    share: Literal["none", "kv", "layer", "headwise", "per_head"] = "none"
    init: Literal["segments", "normal"] = "segments"
    guide: Literal["unguided", "target", "trajectory", "waypoint", "hybrid"] = "target"
    alpha_output: Annotated[float, Ge(0), Le(1_000_000)] = 0.0
    alpha_layer: Annotated[float, Ge(0), Le(1_000_000)] = 1.0
    temperature: Annotated[float, Gt(0), Le(1_000)] = 2.0
    start: Literal["candidate", "pretrained"] | None = None
    freeze_steps: Annotated[int, Ge(0)] = 0
    max_distill_steps: Annotated[int, Ge(1)] | None = None
    teacher_learning_rate: Annotated[float, Gt(0), Le(100)] = 5e-5
    teacher_update_cycle: Annotated[int, Ge(1), Le(1_000_000)] = 1
    max_length: Annotated[int, Ge(1), Le(100_000)] | None = None

    def required_traits(self) -> set[str]:
        """Return the traits that these parameters need in addition: a guide needs a fine-tuned teacher."""
        return {"teacher"} if self.taught else set()

    @property
    def taught(self) -> bool:
        """Whether the recipe's teacher takes part."""
        return self.guide in TAUGHT or self.start == "pretrained"

    @property
    def linformer(self) -> bool:
        """Whether any layer gets projections of the length."""
        return any(core.startswith("linformer") for core in self.attention)

    @property
    def pretrained(self) -> bool:
        """Whether the student begins with the weights from before the fine-tuning."""
        return self.start == "pretrained" or (self.start is None and self.guide == "waypoint")

    def max_tokens(self) -> int:
        """Return the tokens that the result is sure to read, whatever the candidate reads."""
        return self.max_length or 0

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        for core in self.attention:
            try:
                attention_core(core)
            except InputError as error:
                problems.append(str(error))
        if not problems and {attention_core(core) for core in self.attention} == {"softmax"}:
            problems.append("attention: softmax alone changes nothing; choose linformer, window or kernel")
        for name in ("share", "init"):
            if getattr(self, name) != getattr(type(self), name) and not self.linformer:
                problems.append(f"{name}: projections belong to linformer, got attention: {', '.join(self.attention)}")
        if (self.guide == "hybrid") != (self.max_distill_steps is not None):
            problems.append(f"max_distill_steps belongs to guide: hybrid, which needs it; got guide: {self.guide}")
        if self.guide != "unguided" and not self.alpha_output and not self.alpha_layer:
            problems.append(f"guide: {self.guide} has no weight; give alpha_output or alpha_layer, or guide: unguided")
        if self.freeze_steps and not self.linformer:
            problems.append("freeze_steps: only linformer has new weights to train meanwhile")
        return problems

    def file_problems(self) -> list[str]:
        """Report that several processes cannot train a second model."""
        from limbeck.distributed import context as processes

        if self.guide == "trajectory" and processes.count() > 1:
            return [f"guide: trajectory trains two models, which one process can; {processes.count()} were started"]
        return []

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot become what is wanted; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            self.cores(candidate.model.shape.depth)
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible."""
        try:
            return shape.with_attention(*self.cores(shape.depth))
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: a guide's forward pass comes on top, and a trajectory's steps.

        Args:
            shape: Shape of the model.
            rows: Rows of the task, by split.
            tokens: Tokens of a typical text.
        """
        more = {"unguided": 0.0, "trajectory": 1 + 3 / self.teacher_update_cycle}.get(self.guide, 1.0)
        return super().estimated_seconds(shape, rows, tokens) * (1 + more / self.passes)

    def cores(self, depth: int) -> tuple[str, ...]:
        """Return the core of every layer, by its full name."""
        cores = tuple(attention_core(core) for core in self.attention)
        if len(cores) == 1:
            return cores * depth
        if len(cores) != depth:
            raise InputError(f"linearize.attention: has {len(cores)} cores, the model {depth} layers; give one for all")
        return cores

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the converted candidate, trained."""
        from limbeck.cost_models.latency_table import typical_length
        from limbeck.model.attention_conversion import convert, new_projections
        from limbeck.train.finetuning import train_on_task

        if problems := self.problems():
            raise InputError(f"linearize: {problems[0]}")
        teacher = self.teacher(candidate, context) if self.taught else None
        before = self.begun(candidate, teacher)
        positions = self.positions(before)
        if positions:
            candidate.tokenizer.model_max_length = self.max_length
        tokens = typical_length(candidate, percent=95) if self.init == "segments" and self.linformer else None
        cores = self.cores(before.shape.depth)
        model = convert(before, cores, share=self.share, positions=positions, tokens=tokens, seed=context.seed)
        fresh = new_projections(model, before)
        if self.freeze_steps and not fresh:
            raise InputError("linearize.freeze_steps: the model has these projections already, so nothing is new")
        objective = self.objective(candidate, model, teacher, before, fresh)
        converted = replace(candidate, model=model, folder=None)
        context.log(f"{before.shape} -> {model.shape}; projections shared: {self.share}")
        train_on_task(converted, objective, self, context)
        yield replace(converted, model=model.requires_grad_())

    def teacher(self, candidate: Candidate, context: RunContext) -> Candidate:
        """Return the guide after checking that it can teach this student."""
        if context.teacher is None:
            raise InputError(
                f"linearize: guide {self.guide} has no teacher; put 'finetune' before it or name one with "
                "'teacher: MODEL', or use guide: trajectory"
            )
        opened = context.teacher.open()
        teacher = adapt_vocabulary(candidate, opened)
        if teacher is None:
            raise InputError("linearize: the teacher lacks tokens of the candidate's vocabulary")
        if teacher is not opened and (self.guide == "waypoint" or self.pretrained):
            raise InputError("linearize: the kept epochs read another vocabulary than the candidate; use guide: target")
        student_shape, teacher_shape = candidate.model.shape, teacher.model.shape
        if self.guide in TAUGHT and student_shape.depth > teacher_shape.depth:
            raise InputError(
                f"linearize: the model has {student_shape.depth} layers, more than its teacher's {teacher_shape.depth}"
            )
        if len(teacher.epoch_checkpoints) < (2 if self.guide == "waypoint" else int(self.pretrained)):
            short = ", of one epoch at least" if teacher.epoch_checkpoints else ""
            raise InputError(
                f"linearize: the teacher's fine-tuning kept no epochs; give it 'finetune: {{keep: every_epoch}}'{short}"
            )
        most = longest(teacher.model)
        if self.guide in TAUGHT and self.max_length is not None and self.max_length > most:
            raise InputError(
                f"linearize.max_length: the teacher reads {most} tokens, so it cannot guide at {self.max_length}; use "
                "guide: trajectory or unguided"
            )
        return teacher

    def begun(self, candidate: Candidate, teacher: Candidate | None) -> Any:
        """Return the model to convert."""
        if not self.pretrained:
            return candidate.model
        from safetensors.torch import load_file

        assert teacher is not None
        weights, state = load_file(teacher.epoch_checkpoints[0]), candidate.model.state_dict()
        if {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in state.items()
        }:
            raise InputError(
                f"linearize.start: the weights before the fine-tuning are those of another model than the candidate "
                f"({teacher.model.shape} and {candidate.model.shape}); use start: candidate"
            )
        candidate.model.load_state_dict(weights)
        return candidate.model

    def positions(self, model: TrainableEncoder) -> int | None:
        """Return how many positions the model needs; None if it has enough."""
        if self.max_length is None or self.max_length <= longest(model):
            return None
        return self.max_length + int(model.config.max_positions) - longest(model)

    def objective(
        self, candidate: Candidate, model: Any, teacher: Candidate | None, before: Any, fresh: frozenset[str]
    ) -> GuidedLoss:
        """Return the loss of this guide.

        Args:
            candidate: The candidate that the step works on.
            model: The converted model.
            teacher: The teacher; None for guides without one.
            before: The model before the conversion.
            fresh: Names of new weights.
        """
        from limbeck.model.attention_conversion import convert
        from limbeck.train import linearization as guides
        from limbeck.train.distillation_losses import HiddenLoss, LogitLoss

        frozen: dict[str, Any] = {"freeze_steps": self.freeze_steps, "fresh": fresh}
        if self.guide == "unguided":
            return guides.GuidedLoss(guides.unguided(model), **frozen)
        if self.guide == "trajectory":
            guide = convert(before, ("softmax",) * before.shape.depth, positions=self.positions(before))
        else:
            assert teacher is not None
            guide = teacher.model.eval()
        student_shape, guide_shape = model.shape, guide.shape
        hidden = HiddenLoss(
            "mse", "uniform", (student_shape.depth, guide_shape.depth), (student_shape.hidden, guide_shape.hidden)
        )
        logits = LogitLoss("kl", self.temperature, candidate.task.problem_type)
        terms: dict[str, tuple[float, Any]] = {
            "logits": (self.alpha_output, logits),
            "hidden": (self.alpha_layer * (student_shape.depth + 1), hidden),
        }
        both = (guides.unguided(model), guides.guided(model, guide, terms))
        if self.guide == "trajectory":
            plan = replace(self, learning_rate=self.teacher_learning_rate)
            return guides.Trajectory(*both, **frozen, teacher=guide, config=plan, every=self.teacher_update_cycle)
        if self.guide == "waypoint":
            assert teacher is not None
            epochs = guides.EpochCheckpoints(guide, teacher.epoch_checkpoints[1:])
            return guides.GuidedLoss(*both, prepare=epochs, **frozen)
        return guides.GuidedLoss(*both, until=self.max_distill_steps, **frozen)


def longest(model: TrainableEncoder) -> int:
    """Return the number of tokens that a model has positions for."""
    return int(model.config.max_positions) - skipped_positions(model.config.position_offset)
