"""Accuracy of a grid's points: each trained alone, and all as slices of one model that is trained for them.

Both ways begin with the same weights (except miniatures: alone, each begins with its own checkpoint), see the same
texts as often, learn from labels alone, and keep the weights of the last step. They are recipes of ordinary steps,
carried out by ``engine.run``: what is trained already is found in the store, and an interrupted training goes on from
its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from limbeck.benchmark.grid import Point
from limbeck.benchmark.options import Mode, Training
from limbeck.benchmark.plan import base_of
from limbeck.benchmark.run import Bench, Row
from limbeck.core.search_space import Listed
from limbeck.core.shape import Shape, short_key
from limbeck.core.task import Task
from limbeck.distributed.config import ExecutorConfig
from limbeck.engine.result import Failure
from limbeck.engine.run_log import OnEvent
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.checked_task import checked_task
from limbeck.engine.workers.several import run_several
from limbeck.errors import InputError, LimbeckError
from limbeck.recipe.recipe import Recipe, parse

FORMATS: Mapping[str, list[dict[str, Any]]] = {"float": [], "int8": [{"export": {}}, {"quantize": {}}]}
"""Steps from a trained model to what is judged in a number format, which is what is timed in it."""

RANDOM = "--initial-weights random needs no checkpoint"

WAYS: Mapping[tuple[Mode, ...], str] = {
    ("alone",): "Models trained alone",
    ("shared",): "Slices of one model, trained once for each group of points",
    ("alone", "shared"): "Models trained alone, and slices of one model, trained once for each group of points",
}


@dataclass(frozen=True)
class TrainingRun:
    """A recipe that trains points in one way: each alone, or as slices of one model."""

    mode: Mode
    points: tuple[Point, ...]
    recipe: Recipe
    name: str


@dataclass(frozen=True)
class TrainingBenchmark:
    """All that is trained of a grid, on a task in memory; ``start`` says what weights begin with."""

    runs: tuple[TrainingRun, ...]
    training: Training
    task: Task
    start: str
    store: Store = field(default_factory=Store)

    @property
    def summary(self) -> str:
        """What a reader of the figures should know."""
        how, rows = self.training, len(self.task.split("train"))
        settings = (
            f"{how.epochs:g} epoch{'s' * (how.epochs != 1)} of {rows:,} training texts of {self.task.name}",
            f"{how.train_batch_size} at a time, learning rate {how.learning_rate:g}, seed {how.seed}",
            f"begun with {self.start}",
        )
        judged = f"Judged on {len(self.task.split(how.split)):,} texts ({how.split}); intervals are of 95 %."
        return f"{WAYS[how.ways]}: {', '.join(settings)}. {judged}"

    def evaluate(
        self,
        rows: Sequence[Row],
        folder: Path,
        on_event: OnEvent | None = None,
        executor: ExecutorConfig | None = None,
    ) -> tuple[list[Row], list[Failure]]:
        """Add the quality of their points to the rows; train what the store lacks.

        Args:
            rows: The timed points.
            folder: Folder of the runs.
            on_event: Receives each event as a dictionary.
            executor: Where models are trained; one after another in this process unless given.

        Returns:
            The rows, and the steps that failed.
        """
        facts, failed = {}, []
        recipes = [training_run.recipe for training_run in self.runs]
        folders = [folder / training_run.name for training_run in self.runs]
        results = run_several(recipes, folders, self.store, self.task, on_event, executor)
        for training_run, result in zip(self.runs, results, strict=True):
            failed += result.failed
            for key in result.front:
                record = result.records[key]
                form = "int8" if "int8" in record.traits else "float"
                for point in training_run.points:
                    if point.shape == record.shape:
                        facts[point, form, training_run.mode] = record.fact("quality", self.training.split)
        return [
            replace(row, scores={mode: fact for (*cell, mode), fact in facts.items() if cell == _cell(row) and fact})
            for row in rows
        ], failed


def _cell(row: Row) -> list[Any]:
    return [row.point, row.setting.number_format]


def make_training(
    plan: Bench,
    base: str,
    training: Training,
    store: Store | None = None,
    *,
    task: str | Mapping[str, Any] | None = None,
    loaded: Task | None = None,
) -> TrainingBenchmark:
    """Plan the trainings, and check them before any work starts.

    Args:
        plan: What is timed.
        base: The architecture or the model that is cut.
        training: How to train.
        store: Where finished work is kept.
        task: The task with its options; ``training.task`` if None.
        loaded: The task that this names, where it is in memory already.
    """
    from limbeck.data.task_file import with_settings
    from limbeck.engine.tasks.loading import load_task

    training.check()
    assert training.task is not None
    if cores := [point.label for point in plan.points if point.group == "cores"]:
        raise InputError(
            f"--attention {' '.join(cores)} cannot be trained: cores differ in weights, so they are no slices of one "
            "base; leave out --train, and convert a trained model with 'limbeck linearize'"
        )
    given = with_settings(training.task if task is None else task, {"seed": training.seed})
    loaded = load_task(training.task if task is None else task) if loaded is None else loaded
    store = store or Store()
    spec: dict[str, Any] = dict(given) if not isinstance(given, str) else {}
    if training.train_samples is not None:
        if training.train_samples > (most := len(loaded.split("train"))):
            raise InputError(f"--train-samples: the task has {most:,} training texts; got {training.train_samples:,}")
        loaded = loaded.limit(training.seed, train=training.train_samples)
        spec["limit"] = {**spec.get("limit", {}), "train": training.train_samples}
    if training.initial_weights == "random":
        store.prepare()
        source, start = str(_fresh(plan, base, loaded, training.seed, store)), "random weights"
        plan = replace(plan, points=tuple(replace(point, checkpoint=None) for point in plan.points))
    else:
        start = _check_pretrained(plan, base, training)
        source = base
    target = plan.settings[0].target
    shared = {"model": source, "task": spec, "target": {"threads": target.threads, "batch": target.batch}}
    runs = tuple(_runs(plan, training, shared | {"seed": training.seed}))
    for training_run in runs:
        checked_task(training_run.recipe, store, loaded)
    return TrainingBenchmark(runs, training, loaded, start, store)


def _runs(plan: Bench, training: Training, shared: Mapping[str, Any]) -> Iterator[TrainingRun]:
    """One for all slices that are trained alone, one for each checkpoint, one for each group that shares a model."""
    formats = dict.fromkeys(setting.number_format for setting in plan.settings)
    measurements = [{"fork": [FORMATS[each] for each in formats]}, {"quality": {"split": training.split}}]

    def training_run(
        mode: Mode, points: Sequence[Point], steps: list[Any], name: str, model: str | None = None
    ) -> TrainingRun:
        plain = {**shared, "model": model or shared["model"], "steps": steps + measurements}
        return TrainingRun(mode, tuple(points), parse(plain, name=name), name)

    if "alone" in training.ways:
        if slices := [point for point in plan.points if point.checkpoint is None]:
            yield training_run("alone", slices, [_students(slices), {"finetune": training.plan()}], "alone")
        for point in plan.points:
            if point.checkpoint is not None:
                name = f"alone-{point.label.replace(' ', '-')}"
                steps = [{"finetune": training.plan()}]
                yield training_run("alone", [point], steps, name, point.checkpoint)
    if "shared" in training.ways:
        for group in dict.fromkeys(point.group for point in plan.points):
            points = [point for point in plan.points if point.group == group]
            name = f"shared-{group.replace(' ', '-')}"
            yield training_run("shared", points, [_sharing(points, training), _students(points)], name)


def _students(points: Sequence[Point]) -> dict[str, Any]:
    """Return the step that makes a model of each point from the leading parts of another."""
    init = "resplit" if any(point.approach == "head_size_2" for point in points) else "slice"
    shapes = dict.fromkeys(point.shape for point in points)
    return {"fork": [[{"student_init": {**_widths(shape), "init": init}}] for shape in shapes]}


def _sharing(points: Sequence[Point], training: Training) -> dict[str, Any]:
    """Return the step that trains one model for the points."""
    shapes = [_widths(shape) for shape in dict.fromkeys(point.shape for point in points)]
    lists = {name: [shape[name] for shape in shapes] for name in shapes[0]}
    resplit = any(point.approach == "head_size_2" for point in points)
    return {"weight_sharing": {**lists, "resplit": resplit, "rule": training.rule, **training.plan()}}


def _widths(shape: Shape) -> dict[str, int]:
    row = shape.layers[0]  # all layers of a point are alike
    widths = {"hidden": shape.hidden, "heads": row.heads, "ffn": row.ffn, "head_dim": shape.head_dim}
    return {"layers": shape.depth, **widths}


def _check_pretrained(plan: Bench, base: str, training: Training) -> str:
    """Refuse checkpoints that cannot be opened, and points that are no slices; return what weights begin with."""
    from limbeck.model.checkpoints import peek
    from limbeck.model.pruning.subnetwork import check_slice

    def own(point: Point) -> bool:
        return point.checkpoint is not None and training.ways == ("alone",)

    slices = [point for point in plan.points if not own(point)]
    checkpoints = [point.checkpoint for point in plan.points if point.checkpoint and "alone" in training.ways]
    for source in [base] * bool(slices) + checkpoints:
        try:
            peek(source)
        except LimbeckError as error:
            raise InputError(f"the weights of '{source}' cannot be read: {error}. {RANDOM}") from error
    shape, style = base_of(base)
    for point in slices:
        try:
            check_slice(point.shape, shape, style["embedding_size"])
        except InputError as error:
            raise InputError(f"{point.label} cannot begin with the weights of '{base}': {error}. {RANDOM}") from error
    starts = [f"leading parts of {base}"] * bool(slices) + ["pretrained miniatures"] * bool(checkpoints)
    return " or ".join(starts)


def _fresh(plan: Bench, base: str, task: Task, seed: int, store: Store) -> Path:
    """Make a model with random weights, large enough for all points, and a vocabulary of the training texts."""
    import torch

    from limbeck.data.tokenizer_training import word_pieces
    from limbeck.model.checkpoints import save_model
    from limbeck.model.classification_head import model_class
    from limbeck.model.configuration import LimbeckConfig
    from limbeck.model.layout import shape_config

    whole = Listed(tuple(point.shape for point in plan.points)).whole
    identity = {"shape": whole.to_json(), "task": str(task.fingerprint), "seed": seed, "version": 1}

    def build(folder: Path) -> None:
        tokenizer = word_pieces(task)
        config = LimbeckConfig(**shape_config(whole), num_labels=task.num_labels, vocab_size=len(tokenizer))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = model_class(per_token=task.task_kind.per_token)(config)
        save_model(model, tokenizer, folder)

    return store.facts.keep(f"fresh-{short_key(identity)}", build)
