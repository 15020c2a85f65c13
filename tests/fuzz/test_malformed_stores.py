"""Thousands of damaged stores and run folders: what is read has its form, or it is reported and made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from fuzzing import examples, mutated, mutated_bytes
from hypothesis import given
from hypothesis import strategies as st

from limbeck.core.candidate import Candidate, Record
from limbeck.core.measurement import Measurement
from limbeck.core.shape import Shape
from limbeck.engine.dry_run import read_probed
from limbeck.engine.result import read_result, retained_keys
from limbeck.engine.store.card import CARD, sealed
from limbeck.engine.store.ledger import Ledger, record_to_json
from limbeck.engine.store.stored_form import read_record, read_records
from limbeck.errors import InputError
from limbeck.report.text import summary
from limbeck.train import checkpoint as state

pytestmark = pytest.mark.fuzz

FACT = Measurement("latency_p50", 0.002, "s", 0.0019, 0.0021, n=3, target="t", split="test", detail={"session": "a"})
RECORDS = [
    Record(
        "a" * 16,
        None,
        "model",
        {"source": "m"},
        Shape.uniform(2, 32, 4, 64),
        frozenset({"torch"}),
        (FACT,),
        1.5,
        ("n",),
    ),
    Record("b" * 16, "a" * 16, "export", {}, Shape.uniform(2, 32, 4, 64), frozenset({"onnx"}), (), 0.5),
]
RECIPE = {"model": "m", "task": "movie-reviews", "name": "toy", "steps": ["export", "size"]}


def events():
    common = {"time": "2026-01-01T00:00:00+00:00", "run": "a1"}
    first = {"event": "run", **common, "recipe": RECIPE, "store": "store", "environment": {"processor": "p"}}
    rows = [{"event": "record", **common, "record": record_to_json(record)} for record in RECORDS]
    facts = {"event": "facts", **common, "key": "b" * 16, "facts": [FACT.to_json()]}
    end = {
        "event": "finished",
        **common,
        "front": ["b" * 16],
        "chosen": ["b" * 16],
        "teacher": "a" * 16,
        "replicas": {},
    }
    failed = {"path": "steps[0]", "step": "export", "key": "a" * 16, "error": "e", "traceback": ""}
    return [first, *rows, facts, {"event": "failed", **common, "failure": failed}, end]


def read_all(folder):
    result = read_result(folder)
    assert repr(result)
    summary(result.run_summary, {})
    retained_keys(folder)
    Ledger(folder).ancestors("b")


def test_the_good_one_is_good(rule):
    Path("run").mkdir()
    Path("run/ledger.jsonl").write_text("\n".join(map(json.dumps, events())))
    read_all("run")


@examples(600)
@given(rows=mutated([events()]))
def test_ledgers(rule, rows):
    Path("run").mkdir(exist_ok=True)
    rows = rows if isinstance(rows, list) else [rows]
    Path("run/ledger.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    with rule.check():
        read_all("run")


@examples(300)
@given(raw=mutated_bytes(["\n".join(map(json.dumps, events())).encode()]))
def test_ledgers_as_files(rule, raw):
    Path("run").mkdir(exist_ok=True)
    Path("run/ledger.jsonl").write_bytes(raw)
    with rule.check():
        read_all("run")


def is_read_or_reported(store, path, read):
    """A value, or none and a message about the file."""
    messages = []
    store.notify = messages.append
    value = read()
    assert value is not None or [str(path.resolve()) in message for message in messages] == [True]


@examples(600)
@given(value=mutated([[record_to_json(record) for record in RECORDS]]), data=st.data())
def test_cached_records(rule, toys, value, data):
    """Bare as older versions stored them, or in the envelope of one who knew how to seal it."""
    store = toys.store(rule.work / "store")
    store.prepare()
    path = store.root / "memo" / "children-x.json"
    if data.draw(st.booleans()):
        store.facts.remember("children-x", value)
    else:
        path.write_text(json.dumps(value))
    with rule.check():
        is_read_or_reported(store, path, lambda: store.facts.recall("children-x", read_records))
        list(store.facts.all("children-", read_record))
        list(store.facts.all("children-", read_probed))


@examples(300)
@given(data=st.data())
def test_cached_facts_as_files(rule, toys, data):
    store = toys.store(rule.work / "store")
    store.prepare()
    store.facts.remember("record-x", record_to_json(RECORDS[0]))
    path = store.root / "memo" / "record-x.json"
    path.write_bytes(data.draw(mutated_bytes([path.read_bytes()])))
    with rule.check():
        is_read_or_reported(store, path, lambda: store.facts.recall("record-x", read_record))


@examples(500)
@given(data=st.data())
def test_cards(toys, rule, data):
    """An object with a damaged card is there, or put aside; one that is there can be opened."""
    shutil.rmtree("store", ignore_errors=True)
    store = toys.store(rule.work / "store")
    store.prepare()
    store.put(
        "aa", Candidate(toys.ToyModel([1.0]), "tokenizer", toys.ToyTask()), {"record": record_to_json(RECORDS[0])}
    )
    path = store.objects / "aa" / CARD
    card = data.draw(mutated([json.loads(path.read_text())]))
    if isinstance(card, dict) and data.draw(st.booleans()):
        card = sealed(card)
    path.write_text(json.dumps(card))
    with rule.check():
        store.task_history("aa")
        if store.has("aa"):
            store.open("aa")
        assert store.has("aa") or not (store.objects / "aa").exists() or store.lacks_task("aa")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a small training."""
    accelerator, folder = Accelerator(cpu=True), tmp_path_factory.mktemp("checkpoint")
    state.attach(accelerator)
    accelerator.prepare(torch.nn.Linear(2, 2))
    state.save(accelerator, folder, {"steps": 3, "best": None, "history": [[1, 0.5]]})
    return accelerator, folder


@examples(250)
@given(data=st.data())
def test_checkpoints(rule, checkpoint, data):
    """The training goes on from it, or begins again and says why."""
    accelerator, good = checkpoint
    shutil.rmtree("work", ignore_errors=True)
    shutil.copytree(good, "work")
    path = Path("work", "checkpoint-3", "loop.json")
    path.write_text(json.dumps(data.draw(mutated([json.loads(path.read_text())]))))
    messages = []
    with rule.check():
        counters = state.load(accelerator, Path("work"), messages.append)
        assert isinstance(counters, dict) or counters is None


@examples(250)
@given(data=st.data())
def test_checkpoints_as_files(rule, checkpoint, data):
    accelerator, good = checkpoint
    shutil.rmtree("work", ignore_errors=True)
    shutil.copytree(good, "work")
    paths = sorted(path for path in Path("work").rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(paths))
    path.write_bytes(data.draw(mutated_bytes([path.read_bytes()])))
    with rule.check():
        assert state.load(accelerator, Path("work"), lambda message: None) in (
            None,
            {"steps": 3, "best": None, "history": [[1, 0.5]]},
        )


def test_a_folder_without_a_run_is_an_error(rule):
    with pytest.raises(InputError):
        read_result(".")
