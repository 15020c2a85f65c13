"""The techniques as functions on a model and its tokenizer, without recipe or store.

    from limbeck import distill, prune, quantize

    student = prune(teacher, tokenizer, (texts, labels), speedup=2.0)
    student = distill(student, teacher, tokenizer, (texts, labels), epochs=1)
    small = quantize(student, tokenizer, texts, folder="int8")

Models are those of transformers (of a supported family), of limbeck, or folders and hub names. ``data`` is a list of
texts, or whatever :func:`limbeck.compress` takes as a task; for texts alone the labels are the answers of the model (of
the teacher, where there is one). The model that is given is not changed. Results can be saved with ``save_model``,
trained further with ``transformers.Trainer``, and given to the next function.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from limbeck._functional import (
    check_suits,
    checked_target,
    is_texts,
    judged,
    make_step,
    open_candidate,
    open_sides,
    read_data,
    trained_model,
    training_fields,
)
from limbeck.core.candidate import Candidate
from limbeck.core.cost import in_memory
from limbeck.core.measurement import Measurement
from limbeck.core.step import RunContext, Teacher, discard
from limbeck.core.target import Runtime
from limbeck.errors import InputError
from limbeck.exported import cascade, export, quantize
from limbeck.storage.drafts import keep_in, temporary_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from limbeck._functional import Data, Log, Model
    from limbeck.measure.evaluation import Evaluation
    from limbeck.model.encoder import LimbeckForSequenceClassification
    from limbeck.teachers.function import TeacherFunction

__all__ = ["cascade", "distill", "evaluate", "export", "latency", "linearize", "prune", "quantize"]


def prune(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    speedup: float | None = None,
    latency_ms: float | None = None,
    keep: float | None = None,
    size_mb: float | None = None,
    threads: int = 1,
    batch: int = 1,
    seed: int = 0,
    log: Log | None = None,
    **options: Any,
) -> LimbeckForSequenceClassification:
    """Cut heads, neurons, layers and hidden width down to a goal; see :class:`limbeck.techniques.prune.Prune`.

    Args:
        model: The fine-tuned model.
        tokenizer: That of a model in memory; a folder or hub name is read with its own, whatever is given here.
        data: Texts to judge the parts on.
        speedup: Times as fast on this machine, by a latency table that is measured first (half a minute).
        latency_ms: Latency to reach, in milliseconds, by that table.
        keep: Fraction of the cost to keep.
        size_mb: Size of the weights to reach, in MB.
        threads: Threads that will serve.
        batch: Texts in a call.
        seed: Decides which texts are taken.
        log: Called with each message.
        **options: Other fields of the step: ``cost="macs"`` needs no table, ``criterion``, ``hidden``, ``layers``...

    Returns:
        The smaller model.

    Raises:
        InputError: the goal cannot be met, or an option does not exist.
    """
    from limbeck.cost_models.measured_cost import MeasuredCost
    from limbeck.cost_models.shape_cost import pruning_cost
    from limbeck.data.calibration import sampled_apart
    from limbeck.model.pruning.prune import prune as prune_encoder
    from limbeck.techniques.prune import Prune

    goals = {"speedup": speedup, "latency_ms": latency_ms, "keep": keep, "size_mb": size_mb}
    fields = make_step(Prune, {**{name: goal for name, goal in goals.items() if goal is not None}, **options})
    target = checked_target(threads=threads, batch=batch)
    with open_candidate(model, tokenizer, data) as candidate:
        measured = MeasuredCost(candidate, target, in_memory())
        texts = (candidate.task, candidate.tokenizer, fields.samples, seed)
        scored, held_out = sampled_apart(*texts, fields.pruning.held_out)
        pruned = prune_encoder(
            cast("LimbeckForSequenceClassification", candidate.model),
            scored,
            fields.pruning,
            pruning_cost(fields.pruning, candidate, measured, target, log or discard),
            criterion=fields.criterion,
            reconstruct=fields.reconstruct,
            seed=seed,
            held_out=held_out,
            log=log or discard,
        )
        pruned.eval()
        return pruned


def distill(
    student: Model,
    teacher: Model | TeacherFunction,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    match: Sequence[Literal["logits", "hidden", "attention", "relations", "token_ranking"]] = ("logits",),
    epochs: float = 3.0,
    learning_rate: float = 5e-5,
    seed: int = 0,
    log: Log | None = None,
    **options: Any,
) -> LimbeckForSequenceClassification:
    """Train a student to imitate its teacher; see :class:`limbeck.techniques.distill.Distill`.

    Args:
        student: The model to train; of any shape.
        teacher: Whom to imitate: a fine-tuned model of any architecture, a file of scores (JSONL or Parquet), or a
            function from texts to logits or probabilities. What is inside it, only a model that limbeck opens and that
            reads the same tokens can show.
        tokenizer: That of models in memory; folders and hub names are read with their own, whatever is given here.
        data: Texts to train on. The best weights by a validation split are kept, if there is one.
        match: What is imitated.
        epochs: Passes over the texts.
        learning_rate: The highest learning rate.
        seed: Decides the order of the texts and everything drawn.
        log: Called with each message, and with ``step``, ``total`` and ``loss`` as training goes on.
        **options: Other fields of the step: ``temperature``, ``batch_size``, ``task_weight``, ``preset``...

    Returns:
        The trained student.
    """
    from limbeck.techniques.distill import Distill

    data = read_data(data)
    fields = {"match": list(match), "epochs": epochs, "learning_rate": learning_rate, **options}
    step = make_step(Distill, training_fields(data, fields))
    with open_sides(student, teacher, tokenizer, data) as (candidate, guide), temporary_folder() as scratch:
        imitated = Teacher("teacher", lambda: guide)
        context = RunContext(seed=seed, teacher=imitated, keep=keep_in(scratch), log=log or discard)
        return trained_model(step, candidate, context)


def linearize(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    attention: str | Sequence[str] = "linformer:256",
    epochs: float = 3.0,
    learning_rate: float = 5e-5,
    seed: int = 0,
    log: Log | None = None,
    **options: Any,
) -> LimbeckForSequenceClassification:
    """Replace softmax attention and train the result beside the model; see ``limbeck.techniques.linearize.Linearize``.

    Args:
        model: The fine-tuned model; it is the guide, too.
        tokenizer: That of a model in memory; a folder or hub name is read with its own, whatever is given here.
        data: Texts to train on, and their labels.
        attention: Core of all layers, or one for each: 'linformer:256', 'window:64', 'kernel', 'softmax'.
        epochs: Passes over the texts.
        learning_rate: The highest learning rate.
        seed: Decides the order of the texts and everything drawn.
        log: Called with each message, and with numbers as training goes on.
        **options: Other fields of the step: ``guide``, ``alpha_output``, ``max_length``, ``batch_size``...

    Returns:
        The model with the new attention.
    """
    from limbeck.measure.samples import typical_length
    from limbeck.techniques.linearize import Linearize
    from limbeck.train.linearize import linearize as linearize_encoder

    cores = [attention] if isinstance(attention, str) else list(attention)
    data = read_data(data)
    fields = {"attention": cores, "epochs": epochs, "learning_rate": learning_rate, **options}
    step = make_step(Linearize, training_fields(data, fields))
    with (
        open_candidate(model, tokenizer, data) as candidate,
        open_candidate(model, tokenizer, candidate.task) as guide,
        temporary_folder() as scratch,
    ):
        check_suits(step, candidate.task)
        teacher = Teacher("teacher", lambda: guide)
        linearized = linearize_encoder(
            candidate,
            step.attention,
            step.guidance,
            step.training,
            RunContext(seed=seed, teacher=teacher, keep=keep_in(scratch), scratch=scratch, log=log or discard),
            share=step.share,
            tokens=partial(typical_length, percent=95) if step.averages else None,
            max_length=step.max_length,
            checkpoints=step.checkpoints,
        )
        linearized.eval()
        return linearized


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    split: str | None = None,
    *,
    runtime: Runtime = "onnxruntime",
    threads: int = 1,
    batch: int = 1,
) -> Evaluation:
    """Answer a split and score the answers: the metric with a 95 % interval, and the time that it took.

    Args:
        model: The model.
        tokenizer: That of a model in memory; a folder or hub name is read with its own, whatever is given here.
        data: Labeled texts. They are cut where an artefact cuts them, unless a mapping says ``max_length``.
        split: Which split; 'test' unless given, or all rows where ``data`` is one list of them.
        runtime: Runtime of exported models; others run in torch.
        threads: Threads of the runtime.
        batch: Texts in a call.

    Returns:
        Metric, ``quality`` with ``low`` and ``high``, number of examples, total and mean milliseconds.
    """
    from limbeck.engine.tasks.task_adaptation import served_length
    from limbeck.measure.evaluation import evaluate as measure

    if is_texts(data):
        raise InputError("evaluate needs labels: give (texts, labels), a data set, a path or a Task")
    task, split = judged(data, split)
    if isinstance(model, (str, Path)):  # a model in memory is no artefact
        task = served_length(task, model, chosen=isinstance(data, Mapping) and "max_length" in data)
    with open_candidate(model, tokenizer, task, fill=False) as candidate:
        options = {"threads": threads, "batch": batch, "runtime": runtime}
        return measure(candidate.model, candidate.tokenizer, candidate.task, split, **options)  # type: ignore[arg-type]


@overload
def latency(
    model: Mapping[str, Model],
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    threads: int = ...,
    batch: int = ...,
    seq_len: int | None = ...,
    candidates: int | None = ...,
    runtime: Runtime = ...,
    rounds: int = ...,
) -> dict[str, Measurement]: ...
@overload
def latency(
    model: Model,
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    threads: int = ...,
    batch: int = ...,
    seq_len: int | None = ...,
    candidates: int | None = ...,
    runtime: Runtime = ...,
    rounds: int = ...,
) -> Measurement: ...
def latency(
    model: Model | Mapping[str, Model],
    tokenizer: PreTrainedTokenizerBase | None,
    data: Data,
    *,
    threads: int = 1,
    batch: int = 1,
    seq_len: int | None = None,
    candidates: int | None = None,
    runtime: Runtime = "onnxruntime",
    rounds: int = 15,
) -> Measurement | dict[str, Measurement]:
    """Time a model, or several beside each other; see :class:`limbeck.measure.latency.Latency`.

    All models are loaded in one fresh process and timed alternately. Tokenization is not timed.

    Args:
        model: The model; or a mapping of names to models, which are then comparable.
        tokenizer: That of models in memory; folders and hub names are read with their own, whatever is given here.
        data: Texts, whose real lengths count.
        threads: Threads that serve.
        batch: Texts in a call.
        seq_len: Tokens of every text; None for the real lengths.
        candidates: Documents in a request of a reranker, which is then timed as a whole.
        runtime: Runtime of exported models; others run in eager PyTorch.
        rounds: Timed rounds over the texts.

    Returns:
        The median call in seconds with its 95 % interval; for a mapping by name.
    """
    from limbeck.measure.latency import Latency

    models = model if isinstance(model, Mapping) else {"": model}
    target = checked_target(threads=threads, batch=batch, seq_len=seq_len, runtime=runtime, candidates=candidates)
    with contextlib.ExitStack() as stack:
        opened: list[Candidate] = []
        for each in models.values():
            task = opened[0].task if opened else data
            opened.append(stack.enter_context(open_candidate(each, tokenizer, task)))
        split = "test" if "test" in opened[0].task.splits else "train"
        facts = list(Latency.of(split=split, rounds=rounds).measure(opened, RunContext(target=target)))
    medians = {index: fact for index, fact in facts if fact.name == "latency_p50"}
    named = {name: medians[index] for index, name in enumerate(models)}
    return named if isinstance(model, Mapping) else named[""]
