"""The main job: what it checks first, what it keeps, and what comes of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from format_cost import FormatCost
from planned import TASK

from limbeck.core.measurement import Measurement
from limbeck.core.task import Task
from limbeck.data import given, loading
from limbeck.data.loading import load_task
from limbeck.distributed.config import ExecutorConfig
from limbeck.engine.planning import compress as compressing
from limbeck.engine.planning.compress import compress
from limbeck.engine.planning.planner import SEARCHES
from limbeck.engine.planning.training_options import Training
from limbeck.engine.store.ledger import Ledger
from limbeck.engine.tasks import checked_task as checking
from limbeck.errors import InputError, LimbeckError
from limbeck.recipe.recipe import check, to_data
from limbeck.report.table import rows
from limbeck.techniques.search import Search


def test_nothing_is_timed_for_options_that_are_wrong(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("limbeck.engine.planning.compress.faster_core", None)
    monkeypatch.setattr("limbeck.engine.planning.compress.faster_runtime", None)
    with pytest.raises(InputError, match="effort: there is no 'fast'"):
        compress(str(workspace / "other"), str(workspace / "task"), effort="fast", store=tmp_path)
    with pytest.raises(InputError, match="runtime: exported models do not run in 'onnx'; choose from 'auto', 'onnxr"):
        compress(str(workspace / "other"), str(workspace / "task"), runtime="onnx", store=tmp_path)
    with pytest.raises(InputError, match="workers: the executor 'local'"):
        compress(str(workspace / "other"), str(workspace / "task"), executor=ExecutorConfig(workers=2), store=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float16"}, "precision: 'float16' is for GPUs; on a processor INT8 is tried"),
        ({"device": "cuda", "runtime": "openvino"}, "openvino does not run on 'cuda'"),
        ({"runtime": "tensorrt"}, "tensorrt runs on a GPU, got device .cpu."),
        ({"device": "cuda:99"}, "torch finds no device 'cuda:99' here"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "cuda", "target": "http://board", "profile": "m.jsonl"}, "times ONNX graphs on a processor"),
        ({"target": "candidates=50"}, r"got 'candidates=50'; 'candidates' is an option of its own \(--candidates 50\)"),
        ({"target": "seq_len=64"}, r"'seq_len' is an option of its own \(--seq-len 64\)"),
        ({"target": "x=5"}, "or ray:RESOURCE, got 'x=5'$"),
    ],
)
def test_what_cannot_serve_on_a_device_is_refused(workspace, tmp_path, options, message):
    with pytest.raises(LimbeckError, match=message):
        compress(
            str(workspace / "ready"),
            str(workspace / "task"),
            store=tmp_path / "store",
            folder=tmp_path / "run",
            **options,
        )


@pytest.mark.gpu
def test_compress_on_a_gpu(workspace, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is not installed")
    folders = {"store": tmp_path / "store", "folder": tmp_path / "run"}
    options = {"device": "cuda", "precision": "float16", "latency_ms": 100.0, "effort": "one-shot"}
    compressed = compress(
        str(workspace / "ready"), str(workspace / "task"), allow_weak_teacher=True, progress=False, **options, **folders
    )
    assert compressed.artefact is not None
    facts = [fact for key in compressed.result.measured for fact in compressed.result.records[key].facts]
    assert {fact.target.partition(",")[0] for fact in facts} >= {"cuda"}
    assert "CUDAExecutionProvider" in (compressed.artefact / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency_ms": 0.0}, r"latency_ms should be .*\(0, 10,000,000\], got 0"),
        ({"max_drop": float("nan")}, "max_drop should be a number"),
        ({"size_mb": "10"}, "size_mb should be a number, got '10'"),
        ({"threads": 1.5}, "threads should be a whole number, got 1.5"),
        ({"batch": 0}, "batch should be in"),
        ({"seq_len": -1}, "seq_len should be in"),
        ({"seed": -1}, "seed should be in"),
        ({"replicas": True}, "replicas should be a whole number"),
        ({"training": Training(epochs=0.0)}, "epochs should be in"),
        ({"training": Training(min_steps=2, learning_rate=float("inf"))}, "learning_rate should be a number"),
    ],
)
def test_values_are_checked_as_those_of_the_command_line_are(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        compress("no-model", "no-task", store=tmp_path / "store", folder=tmp_path / "run", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_the_answers_of_a_teacher_is_a_note_before_they_are_asked(workspace, tmp_path):
    """Answers may cost money, so it is said at once which are reused; a failing call then ends the run."""
    task, events = load_task(str(workspace / "task")), []
    first, *_ = task.split("train").texts
    answered = {"text": first, "probabilities": dict.fromkeys(task.label_names, 1 / len(task.label_names))}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "teacher.jsonl").write_text(json.dumps(answered) + "\n")
    folders = {"store": tmp_path / "store", "folder": tmp_path / "run"}
    with pytest.raises(InputError, match="failed on"):
        compress(
            str(workspace / "ready"), task, teacher=lambda texts: 1 / 0, max_drop=1.0, on_event=events.append, **folders
        )
    assert any("answers of an earlier run are reused" in event.get("message", "") for event in events)


def latency(shape, number_format="int8"):
    """A machine on which every head and neuron takes its time."""
    value = 1e-5 + 1e-5 * sum(row.heads + row.ffn / 16 for row in shape.layers)
    return Measurement("latency_p50", value, "s", 0.98 * value, 1.02 * value)


@pytest.mark.slow
def test_pruned_and_searched_candidates_stand_side_by_side(workspace, tmp_path, monkeypatch):
    """One front, one choice, names that say which is which."""
    monkeypatch.setattr("limbeck.cost_models.measured_cost.MeasuredCost", lambda *services: FormatCost(latency))
    monkeypatch.setitem(SEARCHES, "quick", Search.of(population=3, generations=1, samples=8))
    where = {"folder": tmp_path / "run", "store": tmp_path / "store"}
    task = str(workspace / "task")
    options = {"max_drop": 100.0, "strategy": "both", "effort": "quick", "runtime": "onnxruntime"}
    options["allow_weak_teacher"] = True  # the model is random
    compressed = compress(str(workspace / "ready"), task, **options, **where)
    assert not compressed.result.failed
    named = {row.name for row in rows(compressed.result.run_summary)}
    speedups = ("2.0x", "3.0x")
    wanted = {f"searched {goal} · distilled · INT8" for goal in speedups}
    wanted |= {"pruned 2.0x · distilled · INT8", "pruned 3.0x in 2 stages · distilled · INT8"}
    assert named == {"teacher (PyTorch)", "teacher · ONNX", "teacher · INT8", *wanted}
    (chosen,) = compressed.result.chosen
    assert chosen in compressed.result.front
    assert {fact.split for fact in compressed.result.records[chosen].facts if fact.name == "quality"} == {
        "validation",
        "test",
    }
    page = compressed.written["report"].read_text(encoding="utf-8")
    assert "searched 2.0x · distilled · INT8" in page


class Stop(Exception):
    """Raised where a run would begin."""


@pytest.fixture
def begun(workspace, tmp_path, monkeypatch):
    """What a call of ``compress`` would run: the recipe and its task."""
    seen = []

    def start(recipe, task, store, folder, listener, **options):
        seen.append((recipe, task))
        raise Stop

    monkeypatch.setattr(compressing, "start", start)
    monkeypatch.setattr(compressing, "faster_core", lambda *arguments: None)
    monkeypatch.setattr(compressing, "faster_runtime", lambda *arguments: "onnxruntime")

    def begin(task, **options):
        with pytest.raises(Stop):
            compress(str(workspace / "other"), task, folder=tmp_path / "run", store=tmp_path / "store", **options)
        return seen.pop()

    return begin


def test_a_task_by_value_is_kept_beside_the_recipe(begun, tmp_path):
    recipe, task = begun(TASK, latency_ms=1.0)
    assert task is TASK
    assert Task.from_folder(recipe.task) == TASK
    assert not check(recipe)
    texts, labels = ["a fine day", "a bad day"] * 9, ["up", "down"] * 9
    recipe, task = begun((texts, labels))
    assert Task.from_folder(recipe.task) == task
    assert task.label_names == ("down", "up")


def test_a_task_by_name_is_read_once_and_not_copied(begun, workspace, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(given, "load_task", lambda spec, **_: read.append(spec) or load_task(spec))
    recipe, task = begun(str(workspace / "task"))
    assert (recipe.task, read) == (str(workspace / "task"), [str(workspace / "task")])
    as_read = replace(load_task(workspace / "task"), max_length=task.max_length)  # that of the model's tokenizer
    assert task.fingerprint == as_read.fingerprint
    assert not (tmp_path / "run" / "task").exists()


def test_pairs_by_which_nothing_can_be_judged_are_refused_before_any_work(workspace, tmp_path):
    rows = [{"text": f"a fine day {n}", "pair": f"a good day {n}"} for n in range(20)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=r"all validation pairs have the score 1, .*judge: FOLDER"):
        compress(
            str(workspace / "other"),
            {"path": str(tmp_path / "pairs.jsonl"), "kind": "embedding"},
            folder=tmp_path / "run",
            store=tmp_path / "store",
        )


def test_one_shot_leaves_out_goals_that_the_whole_model_meets(begun, workspace, monkeypatch):
    monkeypatch.setattr("limbeck.cost_models.measured_cost.MeasuredCost", lambda *services: FormatCost(latency))
    events = []
    goals = {"latency_ms": 0.2, "effort": "one-shot", "runtime": "onnxruntime", "on_event": events.append}
    recipe, _ = begun(str(workspace / "task"), **goals)  # the whole model takes 0.17 ms
    fork = recipe.steps[-7]
    assert [branch[0].pruning.latency_ms for branch in fork.branches[3:]] == [0.16, 0.13, 0.1]
    assert "the whole model takes 0.17 ms in INT8, as predicted; goals that it meets are left out" in [
        event["message"] for event in events if event["kind"] == "note"
    ]


def test_a_service_is_asked_for_the_runtime_that_it_will_use_and_this_machine_is_not(begun, workspace, monkeypatch):
    def missing(runtime):
        raise LimbeckError(f"{runtime} is not here")

    requests = []
    monkeypatch.setattr(compressing, "check_service", requests.append)
    monkeypatch.setattr(compressing, "check_runtime", missing)
    monkeypatch.setattr("limbeck.measure.backends.check_runtime", missing)
    monkeypatch.setattr("limbeck.cost_models.predictor_file.check_file", lambda *given: None)
    there = {"size_mb": 5.0, "target": "http://board:8765", "profile": "machine.jsonl"}
    for runtime, final in (("openvino", "openvino"), ("auto", "onnxruntime")):
        recipe, _ = begun(str(workspace / "task"), runtime=runtime, **there)
        assert requests.pop() == recipe.target
        assert recipe.target.runtime == final


def counted(monkeypatch, calls, module, name):
    """Count the calls of a function by the name that its module has for it."""
    function = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **options: calls.update([name]) or function(*given, **options))


def test_nothing_is_read_planned_or_checked_twice(begun, workspace, monkeypatch):
    calls = Counter()
    seams = ((given, "load_task"), (loading, "check_task"), (compressing, "Planner"), (checking, "check"))
    for module, name in seams:
        counted(monkeypatch, calls, module, name)
    begun(str(workspace / "task"), effort="one-shot", runtime="onnxruntime")
    assert calls == {"load_task": 1, "Planner": 1, "check": 1}
    calls.clear()
    begun(str(workspace / "task"), runtime="auto")
    assert calls == {"load_task": 1, "Planner": 1, "check": 1}
    calls.clear()
    monkeypatch.setattr(compressing, "faster_core", lambda *arguments: "linformer:128")
    begun(str(workspace / "task"))  # what is measured adds steps, so the recipe is checked again
    assert calls == {"load_task": 1, "Planner": 1, "check": 2}


def test_destinations_are_checked_before_anything_is_read(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in ({"out": tmp_path / "file" / "out"}, {"folder": tmp_path / "file"}):
        with pytest.raises(InputError, match="is a file"):
            compress(str(workspace / "other"), "no such task", **wrong)
    (tmp_path / "run" / "artefact").mkdir(parents=True)
    (tmp_path / "run" / "artefact" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="nor an earlier artefact"):
        compress(str(workspace / "other"), TASK, folder=tmp_path / "run")


def test_the_default_folder_is_for_one_model_and_task(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        shutil.copytree(workspace / "ready", tmp_path / name / "checkpoint-500")
    config = json.loads((tmp_path / "b" / "checkpoint-500" / "config.json").read_text())
    (tmp_path / "b" / "checkpoint-500" / "config.json").write_text(json.dumps({**config, "another": 1}))
    shutil.copytree(workspace / "task", tmp_path / "more")
    options = {"effort": "one-shot", "allow_weak_teacher": True, "progress": False, "store": tmp_path / "store"}

    class Began(Exception):
        """The run begins."""

    def begin(recipe, task, store, folder, *more, **options):
        Ledger(folder / "ledger.jsonl").append(
            "run",
            recipe=to_data(recipe, full=True),
            environment={},
            store="store",
            task=task.fingerprint,
            task_name=task.name,
        )
        raise Began

    monkeypatch.setattr("limbeck.engine.planning.compress.start", begin)

    def go(model, task, **more):
        with pytest.raises(Began):
            compress(model, task, **options, **more)

    go("a/checkpoint-500", str(workspace / "task"))
    go("a/checkpoint-500", str(workspace / "task"))
    go(str(tmp_path / "a" / "checkpoint-500"), str(workspace / "task"))  # the same model
    with pytest.raises(InputError, match=r"run of the model .*a/checkpoint-500'.* \(--folder DIR\)"):
        compress("b/checkpoint-500", str(workspace / "task"), **options)
    with pytest.raises(InputError, match="run of the task 'task', whose artefact and report would be replaced"):
        compress("a/checkpoint-500", "more", **options)
    go("b/checkpoint-500", "more", folder="own")
