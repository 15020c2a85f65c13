"""A law: whatever was damaged in a finished store, the same run ends with the same front, and is delivered."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.outputs import deliver
from limbeck.engine.result import read_result
from limbeck.engine.run import run
from limbeck.engine.store.card import CARD
from limbeck.engine.store.store import Store
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import parse
from limbeck.storage.digests import folder_digests

TASK = toy_task(train=24, validation=16, test=16)
FORK = {"fork": [[], [{"prune": {"keep": 0.5, "cost": "parameters"}}]]}
STEPS = [FORK, "export", "size", {"quality": {"split": "test"}}, {"cheapest": {}}]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_model):
    """A folder with a model, its store and its run; what the run ended with; and what it delivered."""
    root = tmp_path_factory.mktemp("finished")
    tokenizer = toy_tokenizer(TASK)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, root / "model")
    result = carry_out(root)
    assert result.ok
    written = deliver(result, root / "artefact")
    return root, outcome(result), folder_digests(written["artefact"] / "onnx")


def carry_out(root):
    model = str(root / "model")
    recipe = {"model": model, "teacher": model, "task": "movie-reviews", "name": "toy", "steps": STEPS}
    recipe = parse({**recipe, "allow_weak_teacher": True})  # the model is random
    return run(recipe, root / "store", root / "run", task=TASK)


def outcome(result):
    facts = {
        key: sorted((fact.name, fact.split, fact.value) for fact in result.records[key].facts) for key in result.front
    }
    return facts, result.chosen, result.failed


def chosen(root):
    return root / "store" / "objects" / read_result(root / "run").chosen[0]


def flip(path: Path) -> None:
    """Change one bit; size and time stay."""
    status, blob = path.stat(), bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def write_into(folder: str, pattern: str, content: bytes):
    def harm(root):
        for path in (root / "store" / folder).glob(pattern):
            path.write_bytes(content)

    return harm


def edit_cards(**changes):
    def harm(root):
        for path in (root / "store" / "objects").glob(f"*/{CARD}"):
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return harm


def to_the_first_format(root):
    """A store of an earlier version: sizes instead of digests, values without envelopes, no mark."""
    for path in (root / "store" / "objects").glob(f"*/{CARD}"):
        card = json.loads(path.read_text())
        files = {name: (path.parent / name).stat().st_size for name in card["files"]}
        path.write_text(json.dumps({**{k: v for k, v in card.items() if k != "sha256"}, "format": 1, "files": files}))
    for path in (root / "store" / "memo").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text())["value"]))
    (root / "store" / "limbeck-store.json").unlink()


def early_with_flipped_configuration(root):
    to_the_first_format(root)
    for path in (root / "store" / "objects").glob("*/config.json"):
        path.write_text("x" * path.stat().st_size)


def swap_objects(root):
    first, second = sorted((root / "store" / "objects").iterdir())[:2]
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)


DAMAGE = {
    "no store": lambda root: shutil.rmtree(root / "store"),
    "no objects": lambda root: shutil.rmtree(root / "store" / "objects"),
    "no tasks": lambda root: shutil.rmtree(root / "store" / "tasks"),
    "no memo": lambda root: shutil.rmtree(root / "store" / "memo"),
    "chosen gone": lambda root: shutil.rmtree(chosen(root)),
    "chosen empty": lambda root: [path.unlink() for path in chosen(root).rglob("*") if path.is_file()],
    "graph flipped": lambda root: flip(chosen(root) / "onnx" / "model.onnx"),
    "graph cut": lambda root: os.truncate(chosen(root) / "onnx" / "model.onnx", 1000),
    "graphs empty": write_into("objects", "*/onnx/*", b""),
    "weights flipped": lambda root: [flip(path) for path in (root / "store" / "objects").glob("*/model.safetensors")],
    "configurations flipped": lambda root: [flip(path) for path in (root / "store" / "objects").glob("*/config.json")],
    "tokenizer gone": lambda root: (chosen(root) / "tokenizer.json").unlink(),
    "tokenizer of another form": write_into("objects", "*/tokenizer.json", b"{}"),
    "card gone": lambda root: (chosen(root) / CARD).unlink(),
    "card torn": lambda root: os.truncate(chosen(root) / CARD, 100),
    "cards of another form": write_into("objects", f"*/{CARD}", b"[1, 2]"),
    "cards of another task": edit_cards(task="0123456789abcdef"),
    "cards of other files": edit_cards(files={"../../../model/config.json": "0"}),
    "objects swapped": swap_objects,
    "rows of the task flipped": lambda root: [flip(path) for path in (root / "store" / "tasks").glob("*/*.jsonl")],
    "head of the task gone": lambda root: [path.unlink() for path in (root / "store" / "tasks").glob("*/task.json")],
    "memo torn": write_into("memo", "*", b'{"name": "facts'),
    "memo of another form": write_into("memo", "*", b'{"probe": 7, "facts": {"name": []}}'),
    "memo nested deep": write_into("memo", "*.json", b"[" * 100_000),
    "memo flipped": lambda root: [flip(path) for path in (root / "store" / "memo").glob("*.json")],
    "ledger torn": lambda root: os.truncate(root / "run" / "ledger.jsonl", 700),
    "ledger of another form": lambda root: (root / "run" / "ledger.jsonl").write_text('{"event": "record"}\n[]\n7\n'),
    "leftovers": lambda root: (root / "store" / "objects" / ".0123456789abcdef.01234567.draft").mkdir(),
    "an earlier version": to_the_first_format,
    "an earlier version, damaged": early_with_flipped_configuration,
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", DAMAGE.values(), ids=DAMAGE.keys())
def test_the_same_run_ends_the_same(finished, tmp_path, monkeypatch, harm):
    root, expected, delivered = finished
    shutil.copytree(root, tmp_path / "copy")
    harm(tmp_path / "copy")
    result = carry_out(tmp_path / "copy")
    assert outcome(result) == expected
    artefact = deliver(result, tmp_path / "copy" / "artefact")["artefact"]
    assert folder_digests(artefact / "onnx") == delivered
    assert not list((tmp_path / "copy" / "store" / "objects").glob(".*"))
    for key in result.records:
        assert result.open(key).model.shape == result.records[key].shape


LOST = ("no objects", "graph flipped", "card torn", "no tasks", "rows of the task flipped", "tokenizer of another form")


@pytest.mark.parametrize("harm", [DAMAGE[name] for name in LOST], ids=LOST)
def test_a_run_that_is_over_delivers_all_the_same(finished, tmp_path, harm):
    """From its ledger alone, as ``limbeck save`` does; nothing else of the run is repeated."""
    root, _, delivered = finished
    shutil.copytree(root, tmp_path / "copy")
    harm(tmp_path / "copy")
    result = replace(read_result(tmp_path / "copy" / "run", Store(tmp_path / "copy" / "store")), task=TASK)
    artefact = deliver(result, tmp_path / "copy" / "artefact")["artefact"]
    assert folder_digests(artefact / "onnx") == delivered
    assert result.open(result.chosen[0]).task == TASK
