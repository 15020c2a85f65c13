"""Runs with two processes, started by the launchers that people use; this file is also a program of its own."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.numpy import load_file

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.distributed import context as processes
from limbeck.engine.workers import worker
from limbeck.errors import InputError, LimbeckError, ProcessLost
from limbeck.recipe.recipe import dump, parse

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
TRAIN = {"batch_size": 8, "learning_rate": 1e-3, "save_seconds": 0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a task as CSV files and an encoder without a head and without dropout."""
    import torch
    from transformers import BertConfig, BertModel

    workspace = tmp_path_factory.mktemp("place")
    task = toy_task(train=97, validation=48, test=48)
    (workspace / "moods").mkdir()
    for name, split in task.splits.items():
        with (workspace / "moods" / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.DictWriter(stream, ["text", "label"])
            rows.writeheader()
            rows.writerows({**row, "label": task.label_names[row["label"]]} for row in split.to_rows())
    tokenizer = toy_tokenizer(task)
    tokenizer.save_pretrained(workspace / "bert")
    torch.manual_seed(0)
    widths = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **widths, **dropout)
    BertModel(config).save_pretrained(workspace / "bert")
    return workspace


def start(workspace, *steps, launcher=TORCHRUN, folder="run", store="store"):
    """Begin a recipe in two processes; without a launcher in one."""
    recipe = {"model": str(workspace / "bert"), "task": str(workspace / "moods"), "steps": list(steps)}
    recipe = parse({**recipe, "allow_weak_teacher": True})  # an epoch of a tiny model teaches little
    (workspace / f"{folder}.yaml").write_text(dump(recipe))
    launch = ["-m", *launcher] if launcher else []
    command = [sys.executable, *launch, "-m", "limbeck", "run", f"{folder}.yaml", "--json"]
    command += ["--folder", folder, "--store", store]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def end(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def events(workspace, folder="run"):
    path = workspace / folder / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def records(workspace, folder):
    """Step and key of what a run made."""
    return {event["record"]["step"]: event["record"]["key"] for event in events(workspace, folder) if "record" in event}


def workers(process, workspace):
    """The processes that train, in the order of their numbers, once both have loaded what they need."""
    children = []
    while len(children) < 2:
        assert process.poll() is None, process.communicate()
        children = [child for child in psutil.Process(process.pid).children(True) if child.environ().get("RANK")]
        time.sleep(0.05)
    return sorted(children, key=lambda child: int(child.environ()["RANK"]))


def weights(workspace, key, store="store"):
    return load_file(workspace / store / "objects" / key / "model.safetensors")


def checkpoint(workspace, store="store"):
    """Wait for the first checkpoint of whatever trains."""
    return (
        next((workspace / store / "work").glob("*/checkpoint-*/loop.json"), None)
        if (workspace / store).exists()
        else None
    )


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE])
def test_only_process_0_tells_and_writes(workspace, launcher, tmp_path_factory):
    name = launcher[0].split(".")[0]
    steps = ({"finetune": {"epochs": 1, **TRAIN}}, {"distill": {"epochs": 1, **TRAIN}}, {"quality": {}})
    status, out, err = end(start(workspace, *steps, launcher=launcher, folder=name, store=f"store-{name}"))
    assert status == 0, err
    json.loads(out)  # one object, not one for each process
    logged = events(workspace, name)
    assert [event["event"] for event in logged].count("run") == 1
    keys = [event["record"]["key"] for event in logged if event["event"] == "record"]
    objects = [path.name for path in (workspace / f"store-{name}" / "objects").iterdir()]
    assert sorted(keys) == sorted(objects)
    assert len(keys) == len(set(keys)) == 3
    assert not list((workspace / f"store-{name}" / "work").iterdir())
    names = [folder.name for folder in (workspace / f"store-{name}" / "kept").iterdir()]
    # the teacher's on the training rows; teacher's and student's on validation
    assert len(names) == 3
    assert all(name.startswith("logits-") for name in names)
    assert sum("steps in" in event.get("message", "") for event in logged) == 2
    assert any("7 steps in" in event.get("message", "") for event in logged)  # 97 rows in batches of 2 x 8


@pytest.mark.slow
def test_a_whole_recipe(workspace):
    steps = (
        {"finetune": {"epochs": 1, **TRAIN}},
        {"each": {"prune": {"keep": [0.6, 0.8], "cost": "macs", "ffn_multiple": 8, "samples": 32}}},
        {"distill": {"match": ["logits", "hidden"], "epochs": 1, **TRAIN}},
        {"export": {}},
        {"quality": {"split": "validation"}},
        {"latency": {"split": "validation"}},
        {"cheapest": {}},
    )
    for _ in range(2):  # the second time all is found
        status, _, err = end(start(workspace, *steps, folder="whole", store="store-whole"))
        assert status in (0, 3), err  # 3: the chosen one learned nothing
    assert (workspace / "whole" / "report.html").is_file()
    assert (workspace / "whole" / "artefact" / "config.json").is_file()
    assert len(list((workspace / "store-whole" / "objects").iterdir())) == 2 + 3 * 2
    assert sum("steps in" in event.get("message", "") for event in events(workspace, "whole")) == 3


@pytest.mark.slow
def test_a_super_network_on_a_corpus(workspace):
    """Slices and hidden tokens are those of one process with the whole batch, and so is what is learned."""
    fields = {"match": ["mlm", "hidden"], "epochs": 1, "max_length": 16, "gradient_accumulation_steps": 1, **TRAIN}
    status, _, err = end(start(workspace, {"pretrain_supernet": fields}, folder="corpus", store="store-corpus"))
    assert status == 0, err
    steps = ({"pretrain_supernet": {**fields, "batch_size": 16}},)
    status, _, err = end(start(workspace, *steps, launcher=(), folder="alone", store="store-alone"))
    assert status == 0, err
    actual, expected = (
        weights(workspace, records(workspace, name)["pretrain_supernet"], f"store-{name}")
        for name in ("corpus", "alone")
    )
    for name in expected.keys() - {name for name in expected if name.endswith("key.bias")}:
        assert actual[name] == pytest.approx(expected[name], abs=2e-3), name


@pytest.mark.slow
def test_a_candidate_that_fails_leaves_its_siblings(workspace):
    """What all processes refuse is told once; the next candidate is made by all."""
    sweep = {"epochs": 1, **TRAIN, "match": ["relations"]}
    fork = {"fork": [[{"distill": {**sweep, "relation_heads": 3}}], [{"distill": {**sweep, "relation_heads": 2}}]]}
    status, _, err = end(
        start(workspace, {"finetune": {"epochs": 1, **TRAIN}}, fork, folder="fork", store="store-fork")
    )
    assert status != 0, err
    (failed,) = [event["failure"] for event in events(workspace, "fork") if event["event"] == "failed"]
    assert failed["error"].startswith("distill.relation_heads: 3 does not divide")
    assert len(list((workspace / "store-fork" / "objects").iterdir())) == 3
    assert [event for event in events(workspace, "fork") if event["event"] == "finished"]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_process_ends_the_run_and_is_named(workspace, victim):
    store, folder = f"store-kill-{victim}", f"kill-{victim}"
    steps = ({"finetune": {"epochs": 20, **TRAIN, "evaluations_per_epoch": 1}},)
    process = start(workspace, *steps, folder=folder, store=store)
    pids = [worker.pid for worker in workers(process, workspace)]
    wait_for(lambda: checkpoint(workspace, store), process)
    os.kill(pids[victim], signal.SIGKILL)
    status, _, err = end(process)
    assert status != 0
    assert f"error: process {victim} of 2 (pid {pids[victim]}) is gone; the same command goes on" in err
    assert not [event for event in events(workspace, folder) if event["event"] in ("failed", "finished")]
    if victim == 1:
        assert f"(pid {pids[1]}) is gone" in events(workspace, folder)[-1]["message"]

    status, _, err = end(start(workspace, *steps, folder=folder, store=store))
    assert status == 0, err
    assert any(event.get("message", "").startswith("resumed at step") for event in events(workspace, folder))
    if not (workspace / "kill-none").exists():  # the same for both
        status, _, err = end(start(workspace, *steps, folder="kill-none", store="store-kill-none"))
        assert status == 0, err
    key = records(workspace, folder)["finetune"]
    assert key == records(workspace, "kill-none")["finetune"]
    resumed, expected = weights(workspace, key, store), weights(workspace, key, "store-kill-none")
    assert all((resumed[name] == expected[name]).all() for name in expected)


@pytest.mark.slow
def test_followers_wait_without_work_and_hear_of_the_end(tmp_path):
    launch = [sys.executable, "-m", *TORCHRUN, "--no-python", sys.executable, __file__]
    for ending in ("well", "badly", "alone"):
        path = tmp_path / ending
        done = subprocess.run([*launch, ending, str(path)], capture_output=True, text=True, check=False)
        if ending == "alone":
            assert "a step that calls 'fit' must say every_process" in done.stderr
            assert done.returncode != 0
            continue
        assert (done.returncode == 0) == (ending == "well"), done.stderr
        share, status = json.loads(path.read_text()), json.loads(path.with_suffix(".1").read_text())
        assert share < 0.1  # of a processor, while process 0 has something else to do
        assert status == (0 if ending == "well" else 1)


def test_one_that_is_lost_does_not_delay_the_end(monkeypatch):
    """Process 0 on its own: what the others hear, and what its caller sees."""
    gathered = []
    monkeypatch.setattr(processes, "join", lambda: None)
    monkeypatch.setattr(processes, "leave", lambda: None)
    monkeypatch.setattr(processes, "all_gather", lambda **values: gathered.append(values) or [values])
    assert worker.run_with_workers(lambda: 3) == 3
    with pytest.raises(InputError):
        worker.run_with_workers(fail(InputError("no")))
    with pytest.raises(ProcessLost):
        worker.run_with_workers(fail(ProcessLost("process 1 of 2 is gone")))
    assert gathered == [{"do": "end", "status": 3}, {"do": "end", "status": 1}]


def test_a_follower_does_what_it_hears(monkeypatch):
    orders = iter([[{"do": "help", "recipe": {}, "store": "s", "arguments": {}}], [{"do": "end", "status": 4}], [{}]])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(processes, "join", lambda: None)
    monkeypatch.setattr(processes, "leave", lambda: None)
    failed = []

    def gather(*error):
        failed.append(error)
        return None if error else next(orders)

    monkeypatch.setattr(processes, "all_gather", gather)
    assert worker.run_with_workers(fail(AssertionError("followers do no work of their own"))) == 4
    with pytest.raises(LimbeckError, match="process 0 trains alone"):
        worker.run_with_workers(fail(AssertionError))


def fail(error):
    def work():
        raise error

    return work


def main(ending: str, path: Path) -> None:
    """Process 0 sleeps and looks at what the other one costs meanwhile."""

    def work():
        if ending == "alone":
            processes.all_gather()  # as ``fit`` does
            processes.all_gather()
        other = psutil.Process(processes.join().peers[1].pid)
        before = sum(other.cpu_times()[:2])
        time.sleep(3)
        path.write_text(json.dumps((sum(other.cpu_times()[:2]) - before) / 3))
        if ending == "badly":
            raise InputError("no")
        return 0

    number = processes.rank()
    try:
        status = worker.run_with_workers(work)
    except InputError:
        status = 1
    path.with_suffix(f".{number}").write_text(json.dumps(status))
    sys.exit(status)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
