"""Steps that hand out pieces: the same models, texts and figures on any number of workers, whatever they are."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import remote_work
from toy_workers import Threads

from limbeck.augmentation import pos_taggers
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.distributed.config import ExecutorConfig, open_workers
from limbeck.distributed.processes import Processes
from limbeck.distributed.workers import Workers
from limbeck.engine.run import start
from limbeck.engine.store.store import Store
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse
from limbeck.train import teacher_cache

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 2), Range(16, 32, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8))
SEARCH = {"cost": "macs", "keep": 0.7, "at_least": 0.1, "population": 5, "generations": 3, "winners": 2}
STEPS = {
    "evolution": [{"search": SEARCH}],
    "random int8": [{"search": {**SEARCH, "method": "random", "number_format": "int8", "samples": 20}}],
    "nsga2": [{"search": {**SEARCH, "method": "nsga2"}}],
    "ngram": [{"augment": {"n_iter": 3, "chunk_rows": 16}}],
    "tagged and judged": [
        {"augment": {"n_iter": 3, "chunk_rows": 16, "tagger": "lengths", "guard": "relabel", "guard_confidence": 0.51}}
    ],
    "tinybert": [{"augment": {"method": "tinybert", "samples": 3, "chunk_rows": 16, "labels": "teacher"}}],
    "distill": [{"fork": [[{"distill": {"num_train_epochs": 1}}], [{"distill": {"num_train_epochs": 2}}]]}],
    "two phases": [
        {"distill": {"match": ["hidden", "logits"], "intermediate_epochs": 1, "num_train_epochs": 1}},
        {"export": {}},
    ],
}
"""Steps after a fine-tuning, or in a super-network for a search."""


@pytest.fixture
def go(make_model, tmp_path, monkeypatch):
    """Run a recipe with workers, or without; return the result."""
    monkeypatch.setitem(pos_taggers.TAGGERS, "lengths", lambda _: lambda words: [str(len(word)) for word in words])
    monkeypatch.setattr(teacher_cache, "BATCH", 4)
    monkeypatch.setattr(teacher_cache, "PART", 3)
    task = toy_task(train=60, validation=40, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.space, model.config.id2label = SPACE.to_json(), dict(enumerate(task.label_names))
    save_model(model, tokenizer, tmp_path / "model")
    task.to_folder(tmp_path / "task")

    def run_steps(name, folder, workers=None, on_event=lambda event: None):
        first = [] if "search" in STEPS[name][0] else [{"finetune": {"num_train_epochs": 1}}]
        steps = [*first, *STEPS[name], {"quality": {}}]
        recipe = parse({"model": str(tmp_path / "model"), "task": str(tmp_path / "task"), "steps": steps})
        store = Store(tmp_path / f"store-{folder}")
        return start(recipe, task, store, tmp_path / folder, on_event, workers=workers).finish()

    return run_steps


def outcome_of(result):
    """All that a run made and measured, to the last bit; times excepted."""
    candidates = {}
    for key, record in result.records.items():
        candidate = result.open(key)
        weights = {}
        if record.traits >= {"torch"}:
            weights = {name: tensor.numpy().tobytes() for name, tensor in candidate.model.state_dict().items()}
        facts = [(fact.name, fact.value, fact.low, fact.high, fact.n) for fact in record.facts]
        candidates[key] = (record.step, record.notes, weights, candidate.task.fingerprint, facts)
    assert not result.failed
    return result.front, candidates


def without_pace(outcome):
    """Leave out the notes of trainings, which say how many texts they read in a second."""
    front, weights = outcome
    paced = ("finetune", "distill")
    return front, {
        key: (step, None if step in paced else notes, *rest) for key, (step, notes, *rest) in weights.items()
    }


def slow_but(*names):
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in STEPS]


@pytest.mark.parametrize("name", slow_but("evolution", "tagged and judged", "distill"))
def test_the_result_is_that_of_one_process(go, name):
    alone = without_pace(outcome_of(go(name, "alone")))
    backend = Threads()
    workers = Workers(backend, 2)
    try:
        assert without_pace(outcome_of(go(name, "together", workers))) == alone
    finally:
        workers.close()
    pieces = sum(len(job["pieces"]) for job in backend.jobs)
    assert pieces >= 5
    if name == "distill":
        assert pieces == 5 + 2  # parts of the teacher's answers, once for both students; and a probe of each


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("evolution", 1), ("tinybert", 2), ("distill", 3)])
def test_in_processes_the_result_is_that_of_one_process(go, tmp_path, name, count):
    alone = without_pace(outcome_of(go(name, "alone")))
    with open_workers(ExecutorConfig("processes", workers=count, threads=1), tmp_path) as workers:
        assert without_pace(outcome_of(go(name, "together", workers))) == alone


class Killing(Processes):
    """Kills the process that carries out the first piece of work with pieces, a moment after it began."""

    killed = 0

    def call(self, work, payload, needs, report):
        if "pieces" in payload and not self.killed:
            self.killed += 1
            return super().call(
                remote_work.killed_once_over, {"mark": payload["store"] + "/killed", "payload": payload}, needs, report
            )
        return super().call(work, payload, needs, report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evolution", "distill"])
def test_a_worker_that_is_killed_over_a_piece_changes_nothing(go, name):
    alone = without_pace(outcome_of(go(name, "alone")))
    backend, events = Killing(2, threads=1), []
    workers = Workers(backend, 2)
    try:
        assert without_pace(outcome_of(go(name, "together", workers, events.append))) == alone
    finally:
        workers.close()
    assert any("a worker process was killed" in event.get("message", "") for event in events)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(find_spec("ray") is None, reason="pip install 'limbeck[ray]'")
def test_on_a_ray_cluster_the_result_is_that_of_one_process(go, tmp_path):
    alone = without_pace(outcome_of(go("evolution", "alone")))
    with open_workers(ExecutorConfig("ray", workers=2, threads=1), tmp_path) as workers:
        assert without_pace(outcome_of(go("evolution", "together", workers))) == alone
