"""The store keeps whole objects or none, and says what is wrong with the disk."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from dataclasses import replace

import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.paths import default_root
from limbeck.core.task import Task
from limbeck.data.synthetic import toy_task
from limbeck.engine.store.store import Store
from limbeck.errors import InputError, StoreError


@pytest.fixture
def store(toys, tmp_path):
    new_store = toys.store(tmp_path / "store")
    new_store.prepare()
    return new_store


def candidate(toys, *weights):
    return Candidate(toys.ToyModel(list(weights)), "tokenizer", toys.ToyTask())


def test_put_and_open(store, toys):
    store.put("abc", candidate(toys, 1.0), {"seed": 3})
    opened = store.open("abc")
    assert opened.model == toys.ToyModel([1.0])
    assert opened.task == toys.ToyTask()
    assert opened.folder == store.objects / "abc"
    assert store.card("abc").content["seed"] == 3
    assert store.has("abc")
    assert not store.has("abd")
    again = toys.store(store.root)
    assert again.open("abc").task == toys.ToyTask()


def test_the_weights_on_the_way_are_kept_with_the_object(store, toys, tmp_path):
    paths = tuple(tmp_path / f"epoch_{number:03}.safetensors" for number in range(2))
    for number, path in enumerate(paths):
        path.write_text(str(number))
    store.put("a", replace(candidate(toys, 1.0), epoch_checkpoints=paths), {})
    for path in paths:
        path.unlink()
    opened = store.open("a").epoch_checkpoints
    assert [path.read_text() for path in opened] == ["0", "1"]
    assert all(store.objects / "a" in path.parents for path in opened)
    opened[0].unlink()
    assert not store.has("a")  # damaged: it is put aside, and made again


def test_equal_tasks_are_kept_once(store, toys):
    store.put("a", candidate(toys, 1.0), {})
    store.put("b", candidate(toys, 2.0), {})
    assert [path.name for path in store.tasks.iterdir()] == [toys.ToyTask().fingerprint]


def test_a_run_has_its_own_task_where_the_stored_one_lacks_the_former_names(store):
    named = toy_task("classification", train=8, validation=8, test=8)
    renamed = named.relabel(("a", "b", "c"), (0, 1, 2))
    store.open_task = Task.from_folder
    store.keep_task(replace(renamed, former_names=()))  # by an earlier run, from data with the model's own names
    again = Store(store.root)
    assert again.task(renamed.fingerprint).former_names == ()
    again = Store(store.root)
    again.use_task(renamed)
    assert again.task(renamed.fingerprint).former_names == named.label_names


def test_the_history_of_a_task_is_read_without_its_rows(store, toys):
    store.put("a", candidate(toys, 1.0), {})
    assert store.task_history("a") == []
    head = store.tasks / toys.ToyTask().fingerprint / "task.json"
    head.write_text(json.dumps({"history": [{"title": "More"}]}))
    assert store.task_history("a") == [{"title": "More"}]
    head.write_text("{")
    assert store.task_history("a") == store.task_history("nothing") == []


def test_an_interrupted_write_leaves_nothing(store, toys, monkeypatch):
    def stop(model, tokenizer, folder):
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        store.put("abc", candidate(toys, 1.0), {})
    assert list(store.objects.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O error: No space left (os error 28)")]
)
def test_a_full_disk(store, toys, monkeypatch, error):
    def full(model, tokenizer, folder):
        raise error

    monkeypatch.setattr(store, "save", full)
    with pytest.raises(StoreError, match=r"is full; free some space .* what is finished is kept"):
        store.put("abc", candidate(toys, 1.0), {})
    assert list(store.objects.iterdir()) == []


def test_scratch_stays_until_done(store):
    folder = store.scratch("k")
    (folder / "state").write_text("1")
    assert (store.scratch("k") / "state").exists()
    store.done("k")
    assert not folder.exists()


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("LIMBECK_STORE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("LIMBECK_STORE")
    assert default_root().name == "limbeck"


def test_the_card_lists_the_files_with_their_digests(store, toys):
    store.put("abc", candidate(toys, 1.0), {})
    path = store.objects / "abc" / "config.json"
    assert store.card("abc").digests == {"config.json": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert store.bytes_of("abc") > 0
    assert store.bytes_of("absent") is None


def flip(path):
    """Change one bit; size and times stay."""
    status, blob = path.stat(), bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(**changes):
    def harm(folder):
        card = json.loads((folder / "card.json").read_text())
        (folder / "card.json").write_text(json.dumps(card | changes))

    return harm


def other_card(folder):
    return folder.with_name("other") / "card.json"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json has other content than was written"),
        (lambda folder: flip(folder / "config.json"), "config.json has other content than was written"),
        (lambda folder: flip(folder / "card.json"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").write_text("{"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").write_text("[]"), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").write_text("[" * 100_000), "card.json cannot be read"),
        (lambda folder: (folder / "card.json").unlink(), "card.json cannot be read"),
        (lambda folder: shutil.copyfile(other_card(folder), folder / "card.json"), "its card is that of other"),
        (edit(seed=4), "card.json cannot be read"),
        (edit(task="../../elsewhere"), "card.json cannot be read"),
        (edit(files={"../../secret": "0" * 64}), "card.json cannot be read"),
        (edit(files={}), "card.json cannot be read"),
        (edit(format=99), "card.json cannot be read"),
    ],
)
def test_a_damaged_object_is_put_aside(store, toys, harm, message):
    messages = []
    store.notify = messages.append
    for key in ("abc", "other"):
        store.put(key, candidate(toys, 1.0), {"seed": 3})
    assert store.has("abc")
    harm(store.objects / "abc")
    with pytest.raises(StoreError, match=r"object abc in .* is damaged"):
        store.open("abc")
    assert not store.has("abc")
    assert message in messages[0]
    assert len(list((store.root / "quarantine").iterdir())) == 1
    store.put("abc", candidate(toys, 1.0), {})
    assert store.has("abc")


def test_an_object_of_an_earlier_version_gets_digests_when_it_is_read(store, toys):
    store.put("abc", candidate(toys, 1.0), {"seed": 3})
    path, config = store.objects / "abc" / "card.json", store.objects / "abc" / "config.json"
    card = json.loads(path.read_text())
    sizes = {"config.json": config.stat().st_size}
    path.write_text(json.dumps({"format": 1, "seed": 3, "task": card["task"], "files": sizes}))
    assert toys.store(store.root).open("abc").model == toys.ToyModel([1.0])
    assert json.loads(path.read_text()) == card
    flip(config)
    assert not toys.store(store.root).has("abc")


def test_a_damaged_task_is_put_aside_and_the_model_stays(store, toys):
    store.put("abc", candidate(toys, 1.0), {})
    fingerprint = toys.ToyTask().fingerprint
    (store.tasks / fingerprint / "task.json").write_text('{"rows": ["other"], "name": "toy"}')
    again = toys.store(store.root)
    with pytest.raises(StoreError, match=f"has no task {fingerprint}"):
        again.open("abc")
    assert again.lacks_task("abc")
    assert not again.has("abc")
    again.keep_task(toys.ToyTask())
    assert again.open("abc").task == toys.ToyTask()


def test_two_processes_may_put_the_same_damage_aside(store, toys):
    store.put("abc", candidate(toys, 1.0), {})
    store.quarantine("abc", "damaged")
    store.quarantine("abc", "damaged")
    assert len(list((store.root / "quarantine").iterdir())) == 1


@pytest.mark.parametrize("name", ["config.json", "card.json"])
def test_what_cannot_be_read_now_is_not_damage(store, toys, monkeypatch, name):
    store.put("abc", candidate(toys, 1.0), {})
    read = type(store.root).open

    def refuse(path, *arguments, **options):
        if path.name == name:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(store.root), "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            store.has("abc")
    assert store.open("abc").model == toys.ToyModel([1.0])


def test_a_task_that_cannot_be_read_now_stays(store, toys, monkeypatch):
    store.put("abc", candidate(toys, 1.0), {})
    again = toys.store(store.root)

    def refuse(folder):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(again, "open_task", refuse)
        with pytest.raises(MemoryError):
            again.open("abc")
    assert again.open("abc").task == toys.ToyTask()


def test_an_object_of_an_earlier_version_stays_where_memory_is_short(store, toys, monkeypatch):
    store.put("abc", candidate(toys, 1.0), {})
    path, config = store.objects / "abc" / "card.json", store.objects / "abc" / "config.json"
    old = {"format": 1, "task": json.loads(path.read_text())["task"], "files": {"config.json": config.stat().st_size}}
    path.write_text(json.dumps(old))

    def refuse(source, **options):
        raise InputError("does not fit into memory") from MemoryError()

    with monkeypatch.context() as patch:
        patch.setattr(store, "open_model", refuse)
        with pytest.raises(InputError, match="memory"):
            store.has("abc")
    assert store.has("abc")
