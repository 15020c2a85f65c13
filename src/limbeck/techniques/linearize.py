"""Replace softmax attention of a pretrained encoder by a core of linear cost, guided by a softmax teacher.

References: He and Garner, 2025, arXiv:2410.06846 (conversion of RoBERTa to Linformer; the five guides); Wang et al.,
2020, arXiv:2006.04768 (Linformer). Differs: any core of ``model/attention.py``, layer by layer; projections begin as
averages of neighbors, so that the converted model answers much as before (``init: normal`` draws them, as the study
does); losses leave padding out; the guide's hidden states are compared as they are without dropout; a run resumes with
its teacher.

    steps:
      - finetune: {keep: every_epoch}
      - linearize: {attention: [linformer:256], guide: waypoint}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen

from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import group, without_effect
from limbeck.core.goal import TechniqueWithGoal
from limbeck.core.shape import Shape, attention_core
from limbeck.core.step import RunContext, Step, problems_of, step
from limbeck.errors import InputError
from limbeck.train.config import NO_LABELS, TRAINING, TrainingConfig
from limbeck.train.guide_config import GuideConfig
from limbeck.train.layer_distillation import state_marks

if TYPE_CHECKING:
    from limbeck.core.task_kind import TaskKind


@step(
    replace(
        TRAINING,
        name="linearize",
        label="linearised",
        version=3,
        needs={"torch"},
        drops={"elastic"},
        reads={"seed", "teacher"},
        files=frozenset({"checkpoints"}),
        added=TRAINING.added | {"checkpoints"},
        example={
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "attention": ("linformer:8",),
            "guide": "trajectory",
            "teacher_update_cycle": 2,
        },
    )
)
class Linearize(TechniqueWithGoal):
    """Replace the candidate's attention, keep all other weights, and train it on the task beside its guide.

    The loss is that of the task, ``alpha_output`` times that of the logits, and ``alpha_layer`` times the mean squared
    errors of the embeddings and of all layers, summed.

    Attributes:
        training: How the student is trained.
        attention: Core of all layers, or one for each: linformer, window or kernel, with a size after a colon
            (linformer:256, window:64), or softmax, which stays.
        share: Projections of the length: two a layer (none; the Linformer paper calls that headwise), one a layer for
            keys and values (kv), one for all layers (layer), or two for every head (per_head).
        init: New projections average neighbors such that a text as long as the long ones of the task fills them
            (segments), or are drawn ~ N(0, 1).
        guidance: What the student is compared with.
        checkpoints: Folder of an earlier fine-tuning with a model folder for every epoch (epoch_1, epoch_2, …), which
            guide: waypoint follows; unless given, what the teacher kept. The student begins as the folder 'initial'
            beside them, or else as the candidate.
        max_length: Tokens that the model should be able to read, if more than now.
    """

    training: TrainingConfig = group(default=TrainingConfig())
    attention: Annotated[tuple[str, ...], MinLen(1)] = ("linformer:256",)
    share: Literal["none", "kv", "layer", "headwise", "per_head"] = "none"
    init: Literal["segments", "normal"] = "segments"
    guidance: GuideConfig = group(default=GuideConfig())
    checkpoints: str | None = None
    max_length: Annotated[int, Ge(1), Le(100_000)] | None = None

    def required_traits(self) -> set[str]:
        """Return the traits that these parameters need in addition: a guide needs a fine-tuned teacher."""
        return {"teacher"} if self.guidance.needs_teacher else set()

    @property
    def linformer(self) -> bool:
        """Whether any layer gets projections of the length."""
        return any(core.startswith("linformer") for core in self.attention)

    @property
    def averages(self) -> bool:
        """Whether new projections begin as averages of neighbors."""
        return self.init == "segments" and self.linformer

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
        problems += [
            f"attention: {core} costs as much as softmax, for it is computed with a mask; choose window"
            for core in self.attention
            if core.partition(":")[0] == "local"
        ]
        for name in ("share", "init"):
            if getattr(self, name) != getattr(type(self), name) and not self.linformer:
                problems.append(f"{name}: projections belong to linformer, got attention: {', '.join(self.attention)}")
        if self.guidance.guide != "waypoint" and self.guidance.start != "pretrained":
            problems += without_effect(self, ("checkpoints",), f"with guide: {self.guidance.guide}")
        if self.guidance.freeze_steps and not self.linformer:
            problems.append("freeze_steps: only linformer has new weights to train meanwhile")
        return problems

    def label_problems(self, kind: TaskKind) -> dict[str, str]:
        """Return that vectors have no loss of their own without scores of pairs; other answers stand for labels."""
        reason = f"{NO_LABELS}, and vectors have no loss of their own; give pairs of texts with scores"
        return {"": reason} if kind.vectors else {}

    def marks(self, traits: AbstractSet[str]) -> Mapping[str, Any]:
        """Mark results of students that leave tokens behind."""
        return state_marks(("hidden",) if self.guidance.compares_states else (), traits)

    def file_problems(self) -> list[str]:
        """Report a folder without epochs, and that several processes cannot train a second model."""
        from limbeck.distributed import context as processes
        from limbeck.model.kept_weights import epoch_folders

        if self.checkpoints is not None:
            try:
                epoch_folders(self.checkpoints)
            except InputError as error:
                return [f"checkpoints: {error}"]
        if self.guidance.guide == "trajectory" and processes.count() > 1:
            return [f"guide: trajectory trains two models, which one process can; {processes.count()} were started"]
        return []

    def epoch_problems(self, *, epochs: bool) -> list[str]:
        """Report that the teacher did not keep the weights to follow or to begin with."""
        return self.guidance.epoch_problems(self.checkpoints, epochs=epochs)

    def out_of_reach(self, candidate: Candidate, context: RunContext, earlier: Sequence[Step] = ()) -> str | None:
        """Say why a model of this shape cannot become what is wanted; None if it can.

        Args:
            candidate: A model of the shape that will come in, trained or not.
            context: Services of the run.
            earlier: The steps in between.
        """
        try:
            candidate.model.shape.converted(self.attention)
        except InputError as error:
            return str(error)
        return None

    def shape_after(self, shape: Shape) -> Shape | None:
        """Return the resulting shape; None if it is impossible."""
        try:
            return shape.converted(self.attention)
        except InputError:
            return None

    def estimated_seconds(self, shape: Shape, rows: Mapping[str, int], tokens: float) -> float:
        """Return rough seconds: a guide's forward pass comes on top, and a trajectory's steps."""
        return self.training.estimated_seconds(shape, rows, tokens) * self.guidance.relative_cost

    def apply(self, candidate: Candidate, context: RunContext) -> Iterator[Candidate]:
        """Yield the converted candidate, trained."""
        from limbeck.measure.samples import typical_length
        from limbeck.train.linearize import linearize

        if problems := problems_of(self):
            raise InputError(f"linearize: {problems[0]}")
        model = linearize(
            candidate,
            self.attention,
            self.guidance,
            self.training,
            context,
            share=self.share,
            tokens=partial(typical_length, percent=95) if self.averages else None,
            max_length=self.max_length,
            checkpoints=self.checkpoints,
        )
        yield replace(candidate, model=model, folder=None)
