"""Work ahead of the walk: the same result, whoever makes what when."""

from __future__ import annotations

import gc
import itertools
import shutil
import threading
from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import pytest
from toy_workers import Threads, outcome

from limbeck.core.target import Budget, Target
from limbeck.distributed.workers import Workers
from limbeck.engine.run import start
from limbeck.engine.store.gc import collect
from limbeck.engine.store.ledger import Ledger
from limbeck.engine.workers import orders
from limbeck.engine.workers.ahead import SHORT, length
from limbeck.errors import InputError, ProcessLost
from limbeck.recipe.parsing import leaves
from limbeck.recipe.recipe import Fork, Recipe, placed_steps


@pytest.fixture
def go(toys, tmp_path, monkeypatch):
    """Run steps with workers, or without; return the result and the backend."""
    monkeypatch.setattr(orders, "OPEN_STORE", toys.store)
    model = toys.model_folder(tmp_path / "model")

    def run_steps(steps, name, backend=None, count=3, open_model=toys.open_model, **more):
        recipe = Recipe(model, "movie-reviews", tuple(steps), name="toy", **more)
        workers = Workers(backend, count) if backend is not None else None
        store, folder, events = toys.store(tmp_path / name), tmp_path / f"run-{name}", []
        store.open_model = open_model
        try:
            result = start(recipe, toys.ToyTask(), store, folder, events.append, workers=workers).finish()
        finally:
            if workers is not None:
                workers.close()
        return SimpleNamespace(result=result, events=events)

    return run_steps


def family(toys):
    """Forks in forks, a step that fails, probes between techniques, and a choice that more steps follow."""
    smaller = (toys.ToyPrune(), Fork(((toys.ToyTrain(3),), (toys.ToyPrune(0.25), toys.ToyTrain(4)))))
    return (
        toys.ToyTrain(1),
        toys.ToyQuality(),
        Fork(((), (toys.ToyLevels((8, 4, 2)), toys.ToyBreak(below=3)), smaller)),
        toys.ToyQuality(),
        toys.ToyFront(9),
        toys.ToyTrain(5),
        toys.ToyClock(),
        toys.ToyBest(),
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_result_does_not_depend_on_who_makes_what_when(go, toys, seed):
    alone = go(family(toys), "alone", replicas=3)
    backend = Threads(seed)
    together = go(family(toys), "together", backend, replicas=3)
    assert outcome(together.result) == outcome(alone.result)
    assert list(together.result.records) == list(alone.result.records)  # the ledger has the recipe's order
    techniques = {record.key for record in alone.result.records.values() if record.parent is not None}
    assert len(backend.done) == len(set(backend.done)) >= len(techniques) - 2  # siblings come from one order
    ends = [event for event in together.events if event["kind"] == "candidate_end"]
    assert not any(event["known"] for event in ends if event["children"])


@pytest.mark.parametrize("seed", range(3))
def test_a_combination_waits_for_all_candidates_and_what_follows_for_it(go, toys, seed):
    steps = (toys.ToyTrain(1), toys.ToyLevels((8, 4, 2)), toys.ToyClock(), toys.ToyPair(), toys.ToyTrain(2))
    steps = (*steps, toys.ToyQuality(), toys.ToyClock(), toys.ToyWithin())
    alone, backend = go(steps, "alone", replicas=2), Threads(seed)
    together = go(steps, "together", backend, replicas=2)
    assert outcome(together.result) == outcome(alone.result)
    assert [record.step for record in together.result.ancestors(together.result.chosen[0])][-2:] == [
        "toy-pair",
        "toy-train",
    ]
    paths = [path for path, _ in backend.done]
    assert paths.count("steps[4]") == 4  # each of what reached it, and what it made
    assert "steps[3]" not in paths


@pytest.mark.parametrize("seed", range(3))
def test_the_same_holds_for_every_one_of_several_targets(go, toys, seed):
    steps = (*family(toys)[:-1], toys.ToyWithin())
    several = {"targets": {"a": Target(threads=4), "b": Target()}, "budget": Budget(latency_ms=1.5), "replicas": 2}
    alone, together = go(steps, "alone", **several), go(steps, "together", Threads(seed), **several)
    assert outcome(together.result) == outcome(alone.result)
    for name, result in alone.result.targets.items():
        assert outcome(together.result.targets[name]) == outcome(result)
    assert alone.result.targets["a"].chosen != alone.result.targets["b"].chosen


def test_nothing_works_while_something_is_measured(go, toys, tmp_path):
    for seed in range(3):
        go(family(toys), f"uses-{seed}", Threads(seed))
        uses = [event for event in Ledger(tmp_path / f"run-uses-{seed}").read() if event["event"] == "use"]
        measured = [use for use in uses if use["kind"] == "measure"]
        assert len(measured) == 1
        for measurement, use in product(measured, uses):
            assert use is measurement or use["ended"] <= measurement["began"] or measurement["ended"] <= use["began"]


def test_gc_beside_a_run_removes_nothing_that_was_made_ahead(go, toys, tmp_path):
    class Cleaned(Threads):
        """Workers that are gone after each order, and somebody who then cleans the store."""

        def call(self, work, payload, needs, report):
            result = super().call(work, payload, needs, report)
            gc.collect()  # the worker's claims end with its store
            collected.append(collect(toys.store(tmp_path / "store")).models)
            return result

    collected = []
    steps = (toys.ToyTrain(1), toys.ToyLevels((8, 4)), toys.ToyTrain(2), toys.ToyPrune(), toys.ToyQuality())
    result = go(steps, "store", Cleaned(), 1).result
    assert collected == [0] * 6
    epochs = [call for call in toys.calls() if call.startswith("epoch")]
    assert len(epochs) == 1 + 2 * 2  # nothing was trained again
    assert len(result.front) == 2


def test_gc_beside_a_resumed_run_removes_nothing_that_it_will_come_to(go, toys, tmp_path, monkeypatch):
    steps = (toys.ToyTrain(1), toys.ToyPrune(), toys.ToyQuality())
    go(steps, "store")
    measure, collected = toys.ToyQuality.measure, []

    def cleaned(self, candidates, context):
        collected.append(collect(toys.store(tmp_path / "store")).models)
        return measure(self, candidates, context)

    monkeypatch.setattr(toys.ToyQuality, "measure", cleaned)
    go((*steps[:2], toys.ToyQuality(split="test")), "store")
    assert collected == [0]


def test_what_is_stored_is_not_ordered_again(go, toys):
    go(family(toys), "alone")
    backend = Threads()
    again = go(family(toys), "alone", backend)
    failing = {failure.path for failure in again.result.failed}
    assert {path for path, _ in backend.done} == failing


def test_nothing_is_ordered_past_a_choice_before_it_is_made(go, toys):
    backend = Threads()
    go((toys.ToyLevels((8, 4, 2)), toys.ToyQuality(), toys.ToyBest(), toys.ToyTrain(2)), "best", backend)
    assert [path for path, _ in backend.done] == ["steps[0]", "steps[3]"]


def test_a_lost_worker_ends_the_run_and_the_next_one_resumes(go, toys):
    steps = (toys.ToyTrain(1), toys.ToyPrune(), toys.ToyTrain(2))
    with pytest.raises(ProcessLost):
        go(steps, "lost", Threads(lost=lambda payload: payload["path"] == "steps[2]"))
    backend = Threads()
    result = go(steps, "lost", backend).result
    assert [path for path, _ in backend.done] == ["steps[2]"]
    assert len(result.front) == 1


@pytest.mark.parametrize("error", [InputError, RuntimeError])
def test_a_replica_that_cannot_begin_fails_alone(go, toys, error):
    def open_model(source, *, task=None, seed=0):
        if seed == 1:
            raise error("it is damaged")
        return toys.open_model(source, task=task, seed=seed)

    steps = (toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyBest())
    alone = go(steps, "alone", open_model=open_model, replicas=3).result
    together = go(steps, "together", Threads(), open_model=open_model, replicas=3).result
    assert [(failure.path, failure.step) for failure in alone.failed] == [("replicas", "replica")]
    assert outcome(together) == outcome(alone)


def test_a_branch_that_cannot_reach_its_goal_is_not_begun(go, toys, monkeypatch):
    monkeypatch.setattr(toys.ToyPrune, "out_of_reach", lambda self, candidate, context, earlier: "it is too far")
    monkeypatch.setattr(toys.ToyTrain, "shape_after", lambda self, shape: shape)
    backend = Threads()
    steps = (toys.ToyTrain(1), Fork(((toys.ToyTrain(2),), (toys.ToyTrain(3), toys.ToyPrune()))))
    result = go(steps, "goal", backend).result
    assert {path for path, _ in backend.done} == {"steps[0]", "steps[1].fork[0][0]"}
    assert [failure.path for failure in result.failed] == ["steps[1].fork[1][1]"]


def test_what_follows_a_step_that_only_the_run_can_make_is_ordered_again(go, toys):
    """Its nodes are of another kind than its own machine, and what a step makes depends on that."""

    class OfAnotherKind(Threads):
        def call(self, work, payload, needs, report):
            other = isinstance(named[payload["path"]], (toys.ToyPrune, toys.ToyLevels))
            return super().call(work, {**payload, "base": "0" * 16} if other else payload, needs, report)

    same = toys.ToyLevels((8, 4, 2))
    branches = ((same, toys.ToyTrain(2)), (same, toys.ToyTrain(3)), (toys.ToyPrune(), toys.ToyTrain(4)))
    steps = (toys.ToyTrain(1), Fork(branches), toys.ToyQuality(), toys.ToyBest())
    named = {located.path: located.step for located in leaves(placed_steps(Recipe("m", "t", steps)))}
    alone, backend = go(steps, "alone", replicas=2).result, OfAnotherKind()
    together = go(steps, "together", backend, replicas=2)
    assert outcome(together.result) == outcome(alone)
    trained = [record.key for record in alone.records.values() if record.step == "toy-train"]
    counts = Counter(path for path, _ in backend.done if isinstance(named[path], toys.ToyTrain))
    assert sum(counts.values()) == len(trained)  # by workers, all of them
    reasons = [event["message"] for event in together.events if "by the run itself" in event.get("message", "")]
    assert sorted(reason.split()[0] for reason in reasons) == ["toy-levels", "toy-prune"]
    assert all("has another processor" in reason for reason in reasons)


def test_workers_are_heard_while_something_is_measured_for_what_comes_next(go, toys, monkeypatch):
    """A measurement waits until no worker works on the machine, and a worker that nobody hears works for ever."""
    heard, waited = threading.Event(), []

    class Listening(Threads):
        def call(self, work, payload, needs, report):
            def hear(values):
                report(values)
                if payload["path"] == "steps[1].fork[0][0]":
                    heard.set()

            return super().call(work, payload, needs, hear)

    def out_of_reach(self, candidate, context, earlier):
        if len(earlier) == 1:  # the first step is finished, and the first branch is ordered
            waited.append(heard.wait(5))

    monkeypatch.setattr(toys.ToyPrune, "out_of_reach", out_of_reach)
    monkeypatch.setattr(toys.ToyTrain, "shape_after", lambda self, shape: shape)
    steps = (toys.ToyTrain(1), Fork(((toys.ToyTrain(2),), (toys.ToyTrain(3), toys.ToyPrune()))))
    assert go(steps, "heard", Listening()).result.ok
    assert waited
    assert all(waited)


def test_the_longest_chain_is_the_most_urgent(toys):
    steps = placed_steps(Recipe("m", "t", family(toys)))
    assert [type(located.step) for located in (steps[0], steps[4])] == [toys.ToyTrain, toys.ToyFront]
    assert length(steps) == pytest.approx(2 + 2 * SHORT)  # to the first choice, through the longest of the branches
    assert length(steps[5:]) == 1


def shared_family(toys):
    """A step in rounds of pieces, in two branches that begin differently, and one whose pieces keep folders."""
    return (
        toys.ToyTrain(1),
        Fork(((toys.ToyShare(3),), (toys.ToyPrune(), toys.ToyShare(2)), (toys.ToyShare(1, kept=True),))),
        toys.ToyAnswers(),
        toys.ToyTrain(2),
    )


def notes(result):
    """The messages of steps, with how often each came."""
    return Counter(
        (event["step"], event["key"], event["message"])
        for event in Ledger(result.folder / "ledger.jsonl").read()
        if event["event"] == "note" and "step" in event
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pieces_of_a_step_give_the_same_result_on_any_number_of_workers(go, toys, count):
    alone = go(shared_family(toys), "alone")
    backend = Threads(count)
    together = go(shared_family(toys), "together", backend, count)
    assert outcome(together.result) == outcome(alone.result)
    assert weights(together.result) == weights(alone.result)
    assert notes(together.result) == notes(alone.result)  # what a step says again is heard once
    of_steps = [job for job in backend.jobs if job["pieces"] != [{}]]
    assert sum(len(job["pieces"]) for job in of_steps) == (0 if count == 1 else 5 * (3 + 2 + 1))
    assert len(of_steps) == (0 if count == 1 else 6 * min(5, 2 * count))
    assert not list((together.result.store.root / "locks").glob("token-*"))


def weights(result):
    return {key: result.open(key).model.weights for key in result.records}


def test_pieces_that_keep_a_folder_are_shared_by_steps(go, toys):
    """Two students of one teacher want the same outputs."""
    steps = (toys.ToyTrain(1), Fork(((toys.ToyShare(1, kept=True),), (toys.ToyShare(1, 5, 9, kept=True),))))
    backend = Threads()
    go(steps, "kept", backend)
    assert sum(len(job["pieces"]) for job in backend.jobs) == 5
    assert sorted(line for line in toys.calls() if line.startswith("kept")) == [
        f"kept toy-0-{part}-0.0" for part in range(5)
    ]


def test_a_piece_that_fails_fails_as_in_one_process(go, toys):
    steps = (toys.ToyTrain(1), Fork(((toys.ToyShare(2, broken=3),), (toys.ToyShare(2),))))
    alone, together = go(steps, "alone"), go(steps, "together", Threads())
    assert outcome(together.result) == outcome(alone.result)
    assert [failure.error for failure in together.result.failed] == ["RuntimeError: a part is broken"]


def test_a_machine_of_another_kind_carries_out_no_pieces(go, toys, monkeypatch):
    alone = go(shared_family(toys), "alone")
    monkeypatch.setattr("limbeck.engine.workers.piece_orders.machine", iter(map(str, range(1000))).__next__)
    assert weights(go(shared_family(toys), "together", Threads()).result) == weights(alone.result)


def test_a_worker_that_is_lost_over_a_piece_ends_the_run_and_the_next_one_resumes(go, toys):
    alone = go(shared_family(toys), "alone")
    with pytest.raises(ProcessLost):
        go(shared_family(toys), "lost", Threads(lost=lambda payload: "pieces" in payload and payload["pieces"] != [{}]))
    assert weights(go(shared_family(toys), "lost", Threads()).result) == weights(alone.result)


class OfTheirOwn(Threads):
    """Workers whose nodes do not see the folder of the store."""

    def call(self, work, payload, needs, report):
        return super().call(work, {**payload, "token": "of-another-folder.lock"}, needs, report)


@pytest.fixture
def nodes(toys, tmp_path, monkeypatch):
    """Two nodes with stores of their own, which take turns."""
    numbers = itertools.count()
    monkeypatch.setattr(orders, "Store", lambda: toys.store(tmp_path / f"node-{next(numbers) % 2}"))


@pytest.mark.usefixtures("nodes")
def test_a_node_with_a_store_of_its_own_takes_part(go, toys):
    alone = go(shared_family(toys), "alone")
    together = go(shared_family(toys), "together", OfTheirOwn())
    assert outcome(together.result) == outcome(alone.result)
    assert weights(together.result) == weights(alone.result)
    counts = Counter(line for line in toys.calls() if line.startswith("kept"))
    assert set(counts.values()) == {2}  # once alone, and once together: a folder travels to the step that reads it


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("lost", ["objects", "tasks"])
def test_what_the_store_has_lost_is_made_again_for_the_workers(go, toys, tmp_path, lost):
    steps = (toys.ToyTrain(1), toys.ToyAugment(), toys.ToyLevels((8, 4)))
    more = (*steps, toys.ToyAnswers(), toys.ToyTrain(2), toys.ToyShare(1, kept=True))
    alone = go(more, "alone").result
    go(steps, "together")
    shutil.rmtree(tmp_path / "together" / lost)
    together = go(more, "together", OfTheirOwn())
    assert outcome(together.result) == outcome(alone)
    assert weights(together.result) == weights(alone)
    assert not [event for event in together.events if "by the run itself" in event.get("message", "")]


def test_what_a_probe_reads_is_kept_by_workers_before_it_measures(go, toys):
    backend = Threads()
    result = go((toys.ToyLevels((8, 4, 2)), toys.ToyAnswers(), toys.ToyBest()), "probe", backend).result
    assert sorted(job["key"] for job in backend.jobs) == sorted(
        key for key, record in result.records.items() if record.step == "toy-levels"
    )
    assert len([line for line in toys.calls() if line.startswith("answers")]) == 3
    backend = Threads()
    go((toys.ToyLevels((8, 4, 2)), toys.ToyAnswers(), toys.ToyBest()), "probe", backend)
    assert not backend.jobs  # the facts are known


def test_what_a_probe_reads_is_kept_for_each_target_that_prepares_it(go, toys, monkeypatch):
    def answer(self, candidate, context):
        target = context.target.threads

        def build(folder):
            built.add((target, threading.current_thread() is threading.main_thread()))
            (folder / "value").write_text(str(target))

        return float((context.keep(f"{candidate.folder.name}-{target}", build) / "value").read_text())

    built = set()
    monkeypatch.setattr(toys.ToyAnswers, "info", replace(toys.ToyAnswers.info, reads=frozenset({"target"})))
    monkeypatch.setattr(toys.ToyAnswers, "prepares", lambda self, kind, target: target.threads != 4)
    monkeypatch.setattr(toys.ToyAnswers, "_answer", answer)
    targets = {"a": Target(threads=4), "b": Target(threads=2), "c": Target()}
    backend = Threads()
    result = go((toys.ToyLevels((8, 4)), toys.ToyAnswers(), toys.ToyBest()), "run", backend, targets=targets).result
    assert built == {(4, True), (2, False), (1, False)}  # the walk found what workers had kept
    assert [job["targets"] for job in backend.jobs] == [["b", "c"]] * 2
    for name, target in targets.items():
        answers = {record.fact("answers").value for record in result.targets[name].records.values() if record.facts}
        assert target.threads in answers
