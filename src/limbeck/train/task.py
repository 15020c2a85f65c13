"""Train a candidate on its task: encode, fit, evaluate on the validation split, say what came out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from limbeck import processes
from limbeck.core.candidate import Candidate
from limbeck.data.batches import encode, predict
from limbeck.train.fit import FitReport, fit
from limbeck.train.objectives import Objective, Progress
from limbeck.train.plan import Plan

if TYPE_CHECKING:
    from limbeck.core.step import Lab


def train_on_task(
    candidate: Candidate,
    objective: Objective,
    plan: Plan,
    lab: Lab,
    phase: str = "",
    after_step: Callable[[Progress], None] = lambda progress: None,
) -> FitReport:
    """Train ``candidate.model`` in place on the training split; keep the best weights by the task's metric.

    ``phase`` names the training where a step has several: each has checkpoints of its own.
    """
    task, model = candidate.task, candidate.model
    evaluate = None
    if plan.evaluations_per_epoch and "validation" in task.splits:
        validation = encode(task, "validation", candidate.tokenizer)

        def evaluate(trained: Any) -> float:
            return task.score(predict(trained, validation, 2 * plan.per_device_train_batch_size), validation.labels)

    report = fit(
        model,
        objective,
        encode(task, "train", candidate.tokenizer),
        plan,
        seed=lab.seed,
        evaluate=evaluate,
        scratch=lab.scratch / phase if lab.scratch else None,
        log=lab.log,
        after_step=after_step,
    )
    model.fresh_head, model.untrained = False, ""
    best = "" if report.best_score is None else f", best {task.metric} {report.best_score:.4f} at {report.best_step}"
    lab.log(f"{report.steps} steps in {report.seconds:.0f} s, {report.examples_per_second:.1f} examples/s{best}")
    return report


@contextmanager
def epochs_kept(
    model: Any, epochs: float, scratch: Path | None
) -> Iterator[tuple[Callable[[Progress], None], list[Path]]]:
    """What to call after every step, and the files of weights that come of it: before the first epoch, after each.

    They are there for as long as the context lasts, or as ``scratch`` does.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = (scratch or Path(place)) / "waypoints"
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"epoch_{epoch:03}.safetensors" for epoch in range(math.floor(epochs) + 1)]

        def keep(path: Path) -> None:
            if processes.rank() == 0:
                fresh = path.with_suffix(".new")
                save_file({name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}, fresh)
                fresh.replace(path)

        def after_step(progress: Progress) -> None:
            ends = {round(progress.total * epoch / epochs): epoch for epoch in range(1, len(files))}
            if progress.step in ends:
                keep(files[ends[progress.step]])

        if not files[0].exists():  # it does where this goes on after an interruption
            keep(files[0])
        yield after_step, files
