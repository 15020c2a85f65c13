"""The main job in one call: from a model, a task and a budget to a recipe, its run, and what it hands over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from limbeck.core.shape import Shape, canonical_json
from limbeck.core.target import Budget, Target
from limbeck.engine.deliver import check_place, deliver, unmet
from limbeck.engine.recipe import Recipe, parse
from limbeck.engine.result import RunResult
from limbeck.engine.run import run
from limbeck.engine.store import MACHINE, Store
from limbeck.errors import InputError, nearest

Effort = Literal["quick", "standard", "thorough"]
Strategy = Literal["prune", "search", "both"]

EPOCHS: dict[str, tuple[float, float]] = {"quick": (2, 2), "standard": (3, 3), "thorough": (3, 6)}
"""Epochs of fine-tuning and of distillation; a super-network is trained for as many as a distillation."""

GOALS: dict[str, tuple[float, ...]] = {"quick": (0.9,), "standard": (0.92, 0.7), "thorough": (0.95, 0.8, 0.65, 0.5)}
"""Latency of the pruned candidates as fractions of the budget; the table errs by some per cent, so not 1."""

SPEEDUPS: dict[str, tuple[float, ...]] = {
    "quick": (2.0, 3.0),
    "standard": (1.5, 2.0, 3.0),
    "thorough": (1.5, 2.0, 2.5, 3.0, 4.0),
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

LINEAR = "linformer:128"
"""The core that long texts are tried with."""


@dataclass(frozen=True)
class Compressed:
    """The run, the folders and files it wrote, and what the chosen model breaks of the budget (nothing, if met)."""

    result: RunResult
    written: Mapping[str, Path]
    unmet: tuple[str, ...]


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
) -> Recipe:
    """The recipe that :func:`compress` runs; it can be printed, edited and run again.

    A model that already answers the task is taken as it is and becomes the teacher; any other is fine-tuned first.

    'prune' cuts the model down to several goals. 'search' trains it as a super-network, finds the INT8 slices that
    are best within bounds of latency, and distils the winners. 'both' are branches of one recipe, measured together
    and chosen from together. A bound of size is a goal of pruning alone: a search knows latency, and of what it finds
    the final choice takes what is small enough.

    ``linear``: an attention core that is faster than softmax for these texts here (see :func:`faster_core`); one branch
    converts the model to it, and one prunes what comes of that.
    """
    from limbeck.data.sources import load_task
    from limbeck.model.files import peek

    for field, value, valid in (("strategy", strategy, get_args(Strategy)), ("effort", effort, get_args(Effort))):
        if value not in valid:
            raise InputError(f"{field}: there is no '{value}'; {nearest(value, valid)}")
    answers = load_task(task)
    about = peek(model)
    if about["runtime"] != "torch":
        raise InputError(f"'{model}' is an exported model, which cannot be trained; give the folder it was made from")
    ready = answers_task(model, answers)
    finetune, distill = EPOCHS[effort]
    to_int8: list[Any] = [{"export": {}}, {"quantize": _quantize(budget)}]
    train = {"distill": {"match": ["logits", "hidden"], "epochs": distill, "learning_rate": 5e-5}}
    branches: list[list[Any]] = [[], [{"export": {}}], to_int8]
    if strategy != "search":
        branches += [[{"prune": goal}, train, *to_int8] for goal in _goals(budget, effort, about["shape"].depth)]
    if strategy != "prune":
        branches.append([*_search(model, about["shape"], budget, effort), train, *to_int8])
    if linear is not None:
        convert = {"linearize": {"attention": [linear], "epochs": distill, "learning_rate": 5e-5}}
        smaller = [{"prune": _goals(budget, effort, about["shape"].depth)[0]}, train]
        branches.append([convert, {"fork": [[], smaller]}, *to_int8])
    steps: list[Any] = [] if ready else [{"finetune": {"epochs": finetune}}]
    last = "test" if "test" in answers.splits else "validation"
    steps += [{"fork": branches}, {"size": {"split": last}}, {"quality": {"split": "validation"}}]
    if last == "test":
        steps.append({"quality": {"split": "test"}})
    steps.append({"latency": {"split": last}})
    steps.append({"best": {}} if budget.latency_ms or budget.size_mb else {"cheapest": {}})
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
    return parse(data | ({"teacher": model} if ready else {}), name=name)


def faster_core(model: str, task: Any, target: Target, store: Store | None = None) -> str | None:
    """The attention core that is faster than softmax in INT8 at the length of the task's texts; None where none is.

    Measured on this machine, a stand-in of the model's shape with each core in turn, and kept in the store. Where texts
    are so short that linear attention has no fewer operations, nothing is timed.
    """
    from limbeck.core.facts import machine
    from limbeck.data.sources import load_task
    from limbeck.engine.bench_plan import lengths_of
    from limbeck.measure.paying import paying
    from limbeck.measure.stand_in import style_of
    from limbeck.model.files import peek, peek_style

    about, style = peek(model), peek_style(model)
    if about["shape"].attention or target.runtime != "onnxruntime":
        return None
    answers = load_task(task)
    per_token = answers.kind == "tokens"
    seq_len = target.seq_len or int(median(lengths_of(answers, about["max_length"])))
    known = {"shape": about["shape"].to_json(), "style": style_of(style), "seq_len": seq_len, "core": LINEAR}
    known |= {"target": asdict(target), "machine": machine(), "per_token": per_token}
    name = f"faster-core-{hashlib.sha256(canonical_json(known).encode()).hexdigest()[:16]}"

    def measure() -> dict[str, Any]:
        with store.lock(MACHINE) if store is not None else nullcontext():
            found = paying(about["shape"], style, target, LINEAR, seq_len, per_token=per_token)
        return {"seconds": [] if found is None else [found.softmax, found.linear], "pays": bool(found and found.pays)}

    told = store.memo(name, measure) if store is not None else measure()
    return LINEAR if bool(told["pays"]) else None


def answers_task(model: str, task: Any) -> bool:
    """Whether a model has a trained head for the task, by its configuration: kind of task and label names fit.

    Names that say nothing (``LABEL_0``) may belong to a head that was never trained, so they do not count.
    """
    from limbeck.model.files import peek, read_config
    from limbeck.model.heads import PROBLEMS

    labels, (_, config) = peek(model)["labels"], read_config(model)
    per_token = any(str(name).endswith("TokenClassification") for name in config.get("architectures") or ())
    problem = config.get("problem_type")
    if task.kind == "regression":
        return problem == "regression" and len(labels) == 1
    same = sorted(map(str.casefold, labels)) == sorted(map(str.casefold, task.label_names))
    return same and per_token == (task.kind == "tokens") and problem in (None, PROBLEMS[task.kind])


def _goals(budget: Budget, effort: Effort, depth: int) -> list[dict[str, Any]]:
    """What to prune to. A tight latency may be out of reach of all layers, even empty ones, so half of them try too."""
    if budget.latency_ms:
        goals = [{"latency_ms": round(share * budget.latency_ms, 4)} for share in GOALS[effort]]
        return goals + [{**goals[0], "layers": depth // 2}] * (depth >= 4)
    goals = [{"size_mb": round(0.98 * budget.size_mb, 4)}] if budget.size_mb else []
    return goals + [{"speedup": speedup} for speedup in SPEEDUPS[effort]]


def _search(model: str, shape: Shape, budget: Budget, effort: Effort) -> list[dict[str, Any]]:
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
    train = {"epochs": EPOCHS[effort][1], "learning_rate": 5e-5, "per_layer": True, "ffn_step": FFN_STEP}
    ranges = {name: [least[name], most] for name, most in whole.items()}
    bounds = [{"speedup": speedup} for speedup in SPEEDUPS[effort]]
    if budget.latency_ms:
        bounds = [{"latency_ms": round(share * budget.latency_ms, 4)} for share in BOUNDS[effort]]
    common = {"number_format": "int8", "at_least": 0.7, **SEARCHES[effort]}
    searches = [[{"search": {**bound, **common}}] for bound in bounds]
    return [{"supernet": {**ranges, **train}}, {"fork": searches}]


def _quantize(budget: Budget) -> dict[str, Any]:
    return {} if budget.max_drop is None else {"max_drop": round(budget.max_drop / 2, 4)}


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
    strategy: Strategy = "prune",
    effort: Effort = "standard",
    seed: int = 0,
    replicas: int = 1,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    store: Store | str | Path | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Compressed:
    """Find the most accurate model that meets the budget on this machine, measured, and write it to ``out``.

    Args:
        model: A Hugging Face folder or hub name of a supported family, or 'minilm-l6'.
        task: A named task, a path, or a mapping; see ``load_task``.
        latency_ms: Most that the median call may take, in milliseconds.
        size_mb: Most that the served file may weigh, in MB.
        max_drop: Most points of the metric to lose against the fine-tuned model.
        threads: Threads that will serve.
        batch: Texts in a call.
        seq_len: Tokens in a text; None for the real lengths of the task.
        strategy: How smaller models are found: 'prune', 'search' (a super-network's best slices) or 'both'.
        effort: 'quick', 'standard' or 'thorough': epochs, number of candidates, length of a search.
        seed: Decides everything random.
        replicas: Make the chosen model again with this many seeds in all.
        out: Folder of the artefact; ``<run folder>/artefact`` unless given.
        folder: Folder of the run (recipe, ledger, report); ``runs/compress-<model>`` unless given.
        store: Where finished work is kept.
        on_event: See ``run``.
    """
    budget, target = Budget(latency_ms, size_mb, max_drop), Target(threads=threads, batch=batch, seq_len=seq_len)
    check_place(Path(out) if out else None)
    name = f"compress-{Path(str(model)).name}"
    options: dict[str, Any] = {"budget": budget, "target": target, "strategy": strategy, "effort": effort}
    options |= {"seed": seed, "replicas": replicas, "name": name}
    recipe = plan_recipe(model, task, **options)  # what is wrong with the options is told before anything is timed
    store = store if isinstance(store, Store) else Store(Path(store)) if store else Store()
    store.prepare()
    if (linear := faster_core(model, task, target, store)) is not None:
        recipe = plan_recipe(model, task, **options, linear=linear)
    result = run(recipe, store, folder, on_event)
    written = deliver(result, result.task, Path(out) if out else None)
    return Compressed(result, written, tuple(unmet(result, result.task)))
