"""Load the task of a run; texts without labels get the answers of the run's own model, or of its teacher, as labels.

The measure is then fidelity: how far smaller models answer as that model does. Answers are stored, part by part, so
the labels are the same whenever the run is resumed, and nothing is answered twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.judged_texts import is_judged
from limbeck.core.kinds import find
from limbeck.core.kinds.embedding import Embedding
from limbeck.core.kinds.rerank import Rerank
from limbeck.core.outputs import OutputSpec, Score
from limbeck.core.task import Task
from limbeck.data.config import Options
from limbeck.data.readers import plural
from limbeck.data.texts_task import check_options, has_no_labels, texts_task
from limbeck.engine.store.fingerprint import fingerprint
from limbeck.engine.store.store import Store
from limbeck.engine.tasks.loading import load_task
from limbeck.errors import InputError
from limbeck.model.location import check_vectors, model_folder
from limbeck.teachers.sentence_transformers_model import is_embedding_model

if TYPE_CHECKING:
    from limbeck.core.model import VectorSource

VERSION = 2
"""Of stored answers; 2 has the probabilities of classes."""
DECIMALS = 5
"""Digits of stored numbers and vectors; the order of sums moves later ones."""


def load_run_task(
    spec: str | Path | Mapping[str, Any],
    model: str,
    teacher: str | None,
    store: Store,
    check: Callable[[Task], None] = lambda task: None,
) -> Task:
    """Load what a recipe names as its task.

    Args:
        spec: As for ``load_task``, or a mapping with ``texts``: a file of texts without labels, or the texts.
        model: The recipe's model, which answers such texts.
        teacher: The recipe's teacher, which answers them if there is one.
        store: Where answers are kept; it notifies the user before texts are answered.
        check: Refuses a task of texts that does not suit the recipe; called before any text is answered.

    Raises:
        InputError: The task cannot be loaded, or no model of the recipe answers texts.
    """
    if not has_no_labels(spec):
        return load_task(spec)
    source = teacher or model
    options = Options.parse(spec)
    check_options(options, tuple(spec))
    vectors = _vectors(source)
    outputs = _outputs(source) if vectors is None else OutputSpec(Embedding.name, (), "identity")
    kind = Rerank.name if outputs.kind == Score.name else outputs.kind  # no task has scores that are not compared
    names = () if find(kind).numeric else outputs.labels
    if options.max_length is None:
        longest = _length(source, kind) if vectors is None else vectors.max_length
        options = replace(options, max_length=min(find(kind).usual_length, longest))
    task = replace(texts_task(options, kind, names, load_task), answered_by=source)
    check(task)
    content = fingerprint(model_folder(source) or source)
    name = hashlib.sha256(f"{content}-{task.fingerprint}-{VERSION}".encode()).hexdigest()[:16]

    def build(draft: Path) -> None:
        _answered(task, source, vectors, store, f"{content}-{VERSION}").to_folder(draft)

    folder = store.facts.keep(f"answered-{name}", build)
    stored = Task.from_folder(folder)
    fidelity = f"the labels are the answers of '{source}'; {stored.metric} says how far others answer alike"
    note = f"texts to train on have the vectors of '{source}'" if options.judge is not None else fidelity
    return replace(stored, notes=(*task.notes, note), answered_by=source)


def load_judged_texts(
    spec: str | Path | Mapping[str, Any],
    reference: str,
    split: str | None = None,
    notify: Callable[[str], None] = lambda message: None,
) -> tuple[Task, str]:
    """Load texts without labels to evaluate a model on, with the answers of another as labels.

    Args:
        spec: As for :func:`load_run_task`.
        reference: The model that answers the texts.
        split: The split; 'test' unless given.
        notify: Receives a message before texts are answered.

    Raises:
        InputError: The texts cannot be read, the reference does not answer them, or there is no such split.
    """
    store = Store.of(None)
    store.prepare()
    store.notify = notify
    task, split = load_run_task(spec, reference, None, store), split or "test"
    task.split(split)
    return task, split


def _vectors(source: str) -> VectorSource | None:
    """Return the model if it only gives vectors, to be opened once; None for one that limbeck itself opens."""
    from limbeck.teachers.opening import describe, open_vectors

    if (answers_only := describe(source)) is None:
        return None
    if is_embedding_model(source):
        return open_vectors(source)
    raise InputError(
        f"task: texts without labels are answered by a model that limbeck opens, but of '{source}' "
        f"{answers_only.reason}; label the texts with it first, and give them as a task"
    )


def _outputs(source: str) -> OutputSpec:
    from limbeck.model.checkpoints import peek_outputs

    outputs = peek_outputs(source)
    if not outputs.trained:
        check_vectors(source)
        raise InputError(
            f"task: texts without labels need a model that answers them, but '{source}' has no trained head "
            f"({outputs.untrained}); fine-tune it first, or name a teacher"
        )
    return outputs


def _length(source: str, kind: str) -> int:
    from limbeck.model.checkpoints import peek

    return int(peek(source)["vector_length" if find(kind).vectors else "max_length"])


def _answered(task: Task, source: str, vectors: VectorSource | None, store: Store, identity: str) -> Task:
    """Return the task with a model's answers as labels; of vectors, those of the held-out texts alone.

    Args:
        task: The task.
        source: The model.
        vectors: The model where limbeck does not open it.
        store: Where parts of the answers are kept.
        identity: Identifies the model's content.
    """
    from limbeck.data.answers import CHUNK, answers
    from limbeck.model.checkpoints import open_model

    model, tokenizer = (vectors, None) if vectors is not None else open_model(source, task=task)
    requested = {
        name: split
        for name, split in task.splits.items()
        if not (task.task_kind.vectors and (name == "train" or is_judged(split.labels[0])))
    }  # distillation asks the teacher itself
    if count := sum(map(len, requested.values())):
        store.notify(f"'{source}' answers {plural(count, 'text')}; every {CHUNK} answers are stored")
    splits = dict(task.splits)
    for name, split in requested.items():
        logits = answers(model, tokenizer, task, name, keep=store.facts.keep, identity=identity)
        pairs = zip(logits, split.labels, strict=True)
        if name == "train":  # read by its answers alone
            labels = tuple(_rounded(task.task_kind.review(row, label, 1.0)[0]) for row, label in pairs)
        else:
            labels = tuple(_rounded(task.task_kind.answered_label(row, label)) for row, label in pairs)
        splits[name] = replace(split, labels=labels)
    return replace(task, splits=splits)


def _rounded(label: Any) -> Any:  # a label of any kind
    if isinstance(label, tuple):
        return tuple(map(_rounded, label))
    return round(label, DECIMALS) if isinstance(label, float) else label
