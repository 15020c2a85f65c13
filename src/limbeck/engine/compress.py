"""The main job in one call: from a model, a task and a budget to a recipe, its run, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from limbeck.core.shape import Shape
from limbeck.core.target import Budget, Runtime, Target
from limbeck.engine.data_report import announce
from limbeck.engine.outputs import check_place, deliver, story_of, unmet
from limbeck.engine.progress import listening
from limbeck.engine.result import RunResult
from limbeck.engine.run import carry_out, checked_task, default_folder
from limbeck.engine.runtime_selection import Case, faster_core, faster_runtime
from limbeck.engine.store import Store
from limbeck.engine.stored_task import FOLDER, keep_task
from limbeck.engine.task_adaptation import fit
from limbeck.engine.training_options import Training
from limbeck.errors import InputError, nearest
from limbeck.measure.backends import check_runtime
from limbeck.recipe.recipe import Recipe, parse
from limbeck.report.text import front_frame, summary, summary_html

if TYPE_CHECKING:
    import pandas

    from limbeck.data.task import Task

Effort = Literal["one-shot", "quick", "standard", "thorough"]
Strategy = Literal["prune", "search", "both"]

EPOCHS: dict[str, tuple[float, float]] = {"one-shot": (3, 0), "quick": (2, 2), "standard": (3, 3), "thorough": (3, 6)}
"""Epochs of fine-tuning and of distillation; a super-network is trained for as many as a distillation.

In one shot nothing is trained after the fine-tuning: second-order pruning and its repair alone, minutes for a whole
front, which tells what a longer search will begin with."""

GOALS: dict[str, tuple[float, ...]] = {
    "one-shot": (0.95, 0.8, 0.65, 0.5),
    "quick": (0.9,),
    "standard": (0.92, 0.7),
    "thorough": (0.95, 0.8, 0.65, 0.5),
}
"""Latency of the pruned candidates as fractions of the budget; the table errs by some per cent, so not 1."""

SPEEDUPS: dict[str, tuple[float, ...]] = {
    "one-shot": (1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
    "quick": (2.0, 3.0),
    "standard": (2.0, 3.0, 4.0),
    "thorough": (1.5, 2.0, 3.0, 4.0, 6.0),
}
"""Speed-ups of the smaller candidates over the whole model when the budget names no latency."""

BOUNDS: dict[str, tuple[float, ...]] = {"quick": (1.0,), "standard": (1.0, 0.75), "thorough": (1.0, 0.85, 0.7, 0.55)}
"""Latency of the searched candidates as fractions of the budget: a search keeps clear of the model's error itself."""

SEARCHES: dict[str, dict[str, int]] = {
    "quick": {"population": 15, "generations": 3, "samples": 500},
    "standard": {"population": 25, "generations": 4, "samples": 1000},
    "thorough": {"population": 40, "generations": 8, "winners": 2},
}
"""How long to search, on how many texts slices are judged, and how many winners of each bound are trained on."""

PARTS = {"layers": 3, "heads": 6, "ffn": 12}
"""A super-network's slices go down to these parts of the whole. Hidden width stays, as it does in pruning: so a table
of latency suffices, which takes half a minute to measure, and narrow embeddings have no corpus to be trained on."""

FFN_STEP = 32


WAYS: dict[str, dict[str, list[Any]]] = {
    "standard": {"mode": ["dynamic", "static"]},
    "thorough": {"mode": ["dynamic", "static"], "smooth": [False, True]},
}
"""Ways that INT8 is tried in, all combinations, where not with dynamic ranges alone."""


@dataclass(frozen=True, repr=False)
class Compressed:
    """The run, the folders and files it wrote, and what the chosen model breaks of the budget (nothing, if met).

    ``print`` shows the table of candidates that the command line shows, and so does a notebook.
    """

    result: RunResult
    written: Mapping[str, Path]
    unmet: tuple[str, ...]

    @property
    def artefact(self) -> Path | None:
        """The folder of the chosen model; None where nothing was chosen."""
        return self.written.get("artefact")

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.written["report"]

    @property
    def front(self) -> pandas.DataFrame:
        """The measured candidates, slowest first, a row each; ``on_front`` and ``chosen`` are columns."""
        return front_frame(story_of(self.result, self.result.task))

    def summary(self) -> str:
        """Return the table of candidates and what came of it, as text."""
        return summary(story_of(self.result, self.result.task), self.written)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        state = f"does not meet the budget: {'; '.join(self.unmet)}" if self.unmet else "meets the budget"
        artefact = f"{str(self.artefact)!r}, {state}" if self.artefact else "none"
        return f"Compressed({len(self.result.measured)} candidates measured, artefact {artefact})"

    def _repr_html_(self) -> str:
        return summary_html(story_of(self.result, self.result.task), self.written)


def plan_recipe(
    model: str,
    task: Any,
    *,
    budget: Budget,
    target: Target,
    strategy: Strategy = "prune",
    effort: Effort = "standard",
    seed: int = 0,
    replicas: int = 1,
    name: str = "",
    linear: str | None = None,
    training: Training | None = None,
    allow_weak_teacher: bool = False,
    store: Store | None = None,
    loaded: Task | None = None,
) -> Recipe:
    """The recipe that :func:`compress` runs; it can be printed, edited and run again.

    A model that already answers the task is taken as it is and becomes the teacher; any other is fine-tuned first.

    'prune' cuts the model down in stages, each pruned and distilled from the one before. 'search' trains it as a
    super-network, finds the INT8 slices that are best within bounds of latency, and distils the winners. 'both' are
    branches of one recipe, measured together and chosen from together. A bound of size is a goal of pruning alone, with
    all tokens and with those of the texts: a search knows latency, and of what it finds the final choice takes what is
    small enough.

    ``linear``: an attention core that is faster than softmax for these texts here (see ``faster_core``); one branch
    converts the model to it, and one prunes what comes of that.

    ``store``: where the check of an assumed order of labels is kept.
    ``loaded``: the task that ``task`` names, where it is in memory already.
    """
    from limbeck.data.loading import load_task
    from limbeck.model.checkpoints import peek

    for field, value, valid in (("strategy", strategy, get_args(Strategy)), ("effort", effort, get_args(Effort))):
        if value not in valid:
            raise InputError(f"{field}: there is no '{value}'; {nearest(value, valid)}")
    answers, training = load_task(task) if loaded is None else loaded, training or Training()
    about = peek(model)
    if about["runtime"] != "torch":
        raise InputError(f"'{model}' is an exported model, which cannot be trained; give the folder it was made from")
    fitted = fit(model, answers, store)
    ready = fitted is not None and fitted.answers
    if effort == "one-shot" and strategy != "prune":
        raise InputError(f"strategy: a super-network must be trained, so one shot is for 'prune', got '{strategy}'")
    export, quantize = _int8(budget, target, effort)
    common = training.shared(answers, EPOCHS[effort][1])
    smaller = _smaller(model, about["shape"], budget, strategy, effort, linear, common)
    branches: list[list[Any]] = [[], [export], *([*made, export, quantize] for made in ([], *smaller))]
    steps: list[Any] = [] if ready else [{"finetune": training.finetune(answers, EPOCHS[effort][0])}]
    last = "test" if "test" in answers.splits else "validation"
    steps += [{"fork": branches}, {"size": {"split": last}}, {"quality": {"split": "validation"}}]
    if last == "test":
        steps.append({"quality": {"split": "test"}})
    steps.append({"latency": {"split": last}})
    steps.append({"best": {}} if budget.latency_ms or budget.size_mb else {"cheapest": {}})
    steps.append({"portability": {}})  # of what is handed over
    data = {
        "name": name,
        "model": model,
        "task": task,
        "target": asdict(target),
        "budget": {key: value for key, value in asdict(budget).items() if value is not None},
        "seed": seed,
        "replicas": replicas,
        "steps": steps,
    }
    if allow_weak_teacher:
        data["allow_weak_teacher"] = True
    return parse(data | ({"teacher": model} if ready else {}), name=name)


def _smaller(
    model: str,
    shape: Shape,
    budget: Budget,
    strategy: Strategy,
    effort: Effort,
    linear: str | None,
    common: Mapping[str, Any],
) -> list[list[Any]]:
    """The ways to smaller models, each from the fine-tuned one; ``common``: fields of every training."""
    epochs, (family, others) = EPOCHS[effort][1], _goals(budget, effort, shape.depth)
    ((unit, values),) = family.items()
    if budget.size_mb:  # most bytes of a small model are its words
        others.append([{"vocabulary": {}}, {"prune": {unit: values[0]}} if budget.latency_ms else others[0][0]])
    if effort == "one-shot":  # one pass serves every goal
        return [[{"prune": {unit: value}}] for value in values] + others
    train = {"distill": {"match": ["logits", "hidden"], "epochs": epochs, "learning_rate": 5e-5, **common}}
    branches: list[list[Any]] = []
    if strategy != "search":
        whole = {} if budget.latency_ms else {"relative_to": "teacher"}
        branches = [[{"stages": [{"prune": {unit: list(values), **whole}}, train]}]]
        branches += [[*steps, train] for steps in others]
    if strategy != "prune":
        branches.append([*_search(model, shape, budget, effort, common), train])
    if linear is not None:
        convert = {"linearize": {"attention": [linear], "epochs": epochs, "learning_rate": 5e-5, **common}}
        branches.append([convert, {"fork": [[], [{"prune": {unit: values[0]}}, train]]}])
    return branches


def _goals(budget: Budget, effort: Effort, depth: int) -> tuple[dict[str, tuple[float, ...]], list[list[Any]]]:
    """What to prune to, as values of one field of prune, and other ways to prune.

    A tight latency may be out of reach of all layers, even empty ones, so half of them try too.
    """
    if budget.latency_ms:
        values = tuple(round(share * budget.latency_ms, 4) for share in GOALS[effort])
        half = [{"prune": {"latency_ms": values[0], "layers": depth // 2}}]
        return {"latency_ms": values}, [half] * (depth >= 4)
    small = [[{"prune": {"size_mb": round(0.98 * budget.size_mb, 4)}}]] if budget.size_mb else []
    return {"speedup": SPEEDUPS[effort]}, small


def _search(
    model: str, shape: Shape, budget: Budget, effort: Effort, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A super-network of the fine-tuned model, and one search for each bound."""
    if len(set(shape.layers)) != 1:
        raise InputError(
            f"strategy: a search begins with a model whose layers are alike, but '{model}' is {shape}; use 'prune'"
        )
    whole = {"layers": shape.depth, "heads": shape.layers[0].heads, "ffn": shape.layers[0].ffn}
    least = {name: -(-most // PARTS[name]) for name, most in whole.items()}
    least["ffn"] = min(-(-least["ffn"] // FFN_STEP) * FFN_STEP, whole["ffn"])
    if not all(least.values()):
        raise InputError(f"strategy: '{model}' is {shape}, of which nothing can be searched; use 'prune'")
    train = {"epochs": EPOCHS[effort][1], "learning_rate": 5e-5, "per_layer": True, "ffn_step": FFN_STEP, **common}
    ranges = {name: [least[name], most] for name, most in whole.items()}
    bounds = [{"speedup": speedup} for speedup in SPEEDUPS[effort]]
    if budget.latency_ms:
        bounds = [{"latency_ms": round(share * budget.latency_ms, 4)} for share in BOUNDS[effort]]
    common = {"number_format": "int8", "at_least": 0.7, **SEARCHES[effort]}
    searches = [[{"search": {**bound, **common}}] for bound in bounds]
    return [{"supernet": {**ranges, **train}}, {"fork": searches}]


def _int8(budget: Budget, target: Target, effort: Effort) -> tuple[dict[str, Any], dict[str, Any]]:
    """Export and quantization. OpenVINO reads standard operators, and computes in 8 bits with static ranges alone."""
    limit = {} if budget.max_drop is None else {"max_drop": round(budget.max_drop / 2, 4)}
    ways, openvino = dict(WAYS.get(effort, {})), target.runtime == "openvino"
    if openvino:
        ways["mode"] = ["static"]
    export = {"export": {"fused": False} if openvino else {}}
    return export, {"each": {"quantize": {**ways, **limit}}} if ways else {"quantize": limit}


def compress(
    model: str,
    task: Any,
    *,
    latency_ms: float | None = None,
    size_mb: float | None = None,
    max_drop: float | None = None,
    threads: int = 1,
    batch: int = 1,
    seq_len: int | None = None,
    runtime: Runtime | Literal["auto"] = "auto",
    strategy: Strategy = "prune",
    effort: Effort = "standard",
    seed: int = 0,
    replicas: int = 1,
    training: Training | None = None,
    allow_weak_teacher: bool = False,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    store: Store | str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
    progress: bool | None = None,
) -> Compressed:
    """Find the most accurate model that meets the budget on this machine, measured, and write it to ``out``.

    Args:
        model: A Hugging Face folder or hub name of a supported family, or 'minilm-l6'.
        task: A named task, a path, or a mapping (see ``load_task``); or rows in memory: a ``Task``, a data set or
            data frame, ``(texts, labels)``, or a mapping of those by split (see ``as_task``). Rows in memory are kept
            in the run's folder.
        latency_ms: Most that the median call may take, in milliseconds.
        size_mb: Most that the served file may weigh, in MB.
        max_drop: Most points of the metric to lose against the fine-tuned model.
        threads: Threads that will serve.
        batch: Texts in a call.
        seq_len: Tokens in a text; None for the real lengths of the task.
        runtime: What will serve; 'auto' takes OpenVINO where it is installed and faster in INT8 here, else ONNX
            Runtime. Either way the artefact is an ONNX file that ONNX Runtime runs.
        strategy: How smaller models are found: 'prune', 'search' (a super-network's best slices) or 'both'.
        effort: 'quick', 'standard' or 'thorough': epochs, number of candidates, length of a search; 'one-shot': nothing
            is trained after the fine-tuning, for a whole front in minutes.
        seed: Decides everything random.
        replicas: Make the chosen model again with this many seeds in all.
        training: Epochs, learning rate, class weights, fewest steps and early stopping of the trainings.
        allow_weak_teacher: Go on with a teacher that was not shown to be better than the best constant answer.
        out: Folder of the artefact; ``<run folder>/artefact`` unless given.
        folder: Folder of the run (recipe, ledger, report); ``runs/compress-<model>`` unless given.
        store: Where finished work is kept.
        on_event: See ``run``.
        progress: Whether to draw progress. Unless given: on a terminal and in a notebook, if nobody listens to events.
    """
    from limbeck.data.given import as_task, names_task

    budget, target = Budget(latency_ms, size_mb, max_drop), Target(threads=threads, batch=batch, seq_len=seq_len)
    name = f"compress-{Path(str(model)).name}"
    run_folder, destination = Path(folder) if folder else default_folder(name), Path(out) if out else None
    check_place(destination, run_folder)
    if runtime not in (valid := ("auto", "onnxruntime", "openvino")):
        raise InputError(f"runtime: exported models run in no '{runtime}'; {nearest(runtime, valid)}")
    check_runtime(runtime)
    rows = as_task(task)
    options: dict[str, Any] = {"budget": budget, "strategy": strategy, "effort": effort, "loaded": rows}
    options |= {"seed": seed, "replicas": replicas, "name": name}
    options |= {"training": training, "allow_weak_teacher": allow_weak_teacher}
    store = store if isinstance(store, Store) else Store(Path(store)) if store else Store()
    store.prepare()
    options["store"] = store
    spec = task if names_task(task) else str(run_folder / FOLDER)
    planned = plan_recipe(model, spec, target=target, **options)  # reports what is wrong before anything is timed
    if not names_task(task):
        keep_task(rows, run_folder)
    checked_task(planned, rows)
    with listening(on_event, progress) as listener:
        announce(listener, rows, model)
        case = Case.of(model, rows, target)
        target = replace(target, runtime=faster_runtime(case, target, store) if runtime == "auto" else runtime)
        linear = faster_core(case, target, store) if effort != "one-shot" else None
        recipe = plan_recipe(model, spec, target=target, linear=linear, **options)
        result = carry_out(recipe, checked_task(recipe, rows), store, run_folder, listener)
    written = deliver(result, result.task, destination)
    return Compressed(result, written, tuple(unmet(result, result.task)))
