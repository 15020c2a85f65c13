"""The main job on tiny real models: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from commands import answer, call, keys_of, recipe, write_task

from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import run
from limbeck.errors import InputError
from limbeck.model import checkpoints as files
from limbeck.model.checkpoints import save_model
from limbeck.model.classification_head import set_labels
from limbeck.recipe.recipe import dump, parse


def test_python_m_limbeck_is_the_command():
    command = [sys.executable, "-m", "limbeck", "--version"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.strip()) == (0, version("limbeck"))


def test_help_of_a_technique_shows_its_fields_and_short_names():
    status, out, _ = call("distill", "--help")
    assert status == 0
    assert {"--teacher", "--epochs", "--match", "--temperature"} <= set(re.findall(r"--[a-z-]+", out))


@pytest.mark.slow
def test_compress_takes_a_model_that_answers_the_task_as_teacher(compressed):
    recipe = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert recipe["teacher"] == recipe["model"] == "tuned"
    assert "finetune" not in str(recipe["steps"])
    assert len(compressed["rows"]) == 4
    teacher = next(row for row in compressed["rows"] if row["key"] == compressed["teacher"])
    assert teacher["size_mb"] > 0
    assert compressed["budget_violations"] == compressed["unmet"] == []
    assert Path(compressed["written"]["report"]).read_text().startswith("<!doctype html>")


def test_the_artefact_answers_with_onnxruntime_and_tokenizers_alone(compressed):
    (code,) = re.findall(r"```python\n(.*?)```", Path("art/README.md").read_text(), re.S)[:1]
    absent = "import sys\nfor name in ('torch', 'transformers', 'limbeck'): sys.modules[name] = None\n"
    finished = subprocess.run(
        [sys.executable, "-c", absent + code], cwd="art", capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() in {"sad", "happy", "angry"}
    description = json.loads(Path("art/limbeck.json").read_text())
    assert (Path("art") / description["onnx_file"]).is_file()
    assert Path("art/report.html").is_file()


def test_the_recipe_that_compress_wrote_runs_again_from_the_store(compressed):
    status, out, err = call("run", "run/recipe.yaml", "--folder", "again")
    assert status == 0, err
    assert "vs PyTorch" in out
    assert max(map(len, out.splitlines())) > 100  # not squeezed to 80 columns
    assert "artefact:" in out


def test_report_lineage_and_save(compressed):
    Path("run/report.html").unlink()
    status, out, _ = call("report", "run")
    assert status == 0
    assert "candidate" in out
    assert Path("run/report.html").is_file()
    assert not Path("run/artefact").exists()  # the report alone; the artefact went elsewhere
    (teacher, *_), (distilled,) = keys_of("model"), keys_of("distill")
    status, out, _ = call("lineage", "run", distilled[:8])
    assert [line.split()[1].split("(")[0] for line in out.splitlines()] == ["model", "prune", "distill"]
    assert call("save", "run", distilled[:8], "--to", "kept")[0] == 0
    assert Path("kept/encoder.py").is_file()
    assert call("save", "run", teacher[:8], "--to", "plain", "--plain")[0] == 0
    assert json.loads(Path("plain/config.json").read_text())["model_type"] == "bert"
    assert not Path("plain/encoder.py").exists()
    status, _, err = call("save", "run", teacher[:8], "--to", "kept")
    assert (status, "is neither empty nor an earlier artefact" in err) == (2, True)


def test_folders_after_an_equals_sign_may_be_in_the_home_directory(compressed, tmp_path, monkeypatch):
    """bash gives '--to=~/mine' as it is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (key, *_) = keys_of("model")
    assert call("save", "run", key, "--to=~/mine")[0] == 0
    assert (tmp_path / "mine" / "model.safetensors").is_file()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    status, _, err = call("save", "run", key, "--to=~/thesis")
    assert (status, "is neither empty nor an earlier artefact" in err) == (2, True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert not Path("~").exists()


def test_report_shows_the_baseline_of_the_labels_as_the_run_had_them(tmp_path, make_model):
    task = toy_task(train=24, validation=12, test=8)
    tokenizer = toy_tokenizer(task)
    model = make_model(labels=3, vocab_size=len(tokenizer))
    set_labels(model, tuple(name.upper() for name in task.label_names), "classification")
    save_model(model, tokenizer, tmp_path / "model")
    data = {"model": str(tmp_path / "model"), "task": "movie-reviews", "steps": ["size", "quality"]}
    result = run(parse(data), tmp_path / "store", tmp_path / "run", task=task)
    shown = result.run_summary.baseline
    assert shown.answer.split("'")[1].isupper()
    again = answer("report", tmp_path / "run")
    assert again["baseline"]["answer"] == shown.answer
    assert again["baseline"]["quality"]["test"]["value"] == shown.quality["test"].value


@pytest.mark.slow
def test_compress_fine_tunes_a_bare_encoder(workspace):
    command = [sys.executable, "-c", "from limbeck.cli import main; main()", "compress", "bert-moods"]
    command += ["--task", "moods", "--effort", "quick", "--latency-ms", "0.001", "--folder", "bare"]
    command.append("--allow-weak-teacher")
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 3, finished.stderr
    assert "No candidate meets the budget. The nearest is" in finished.stdout
    assert yaml.safe_load(Path("bare/recipe.yaml").read_text())["steps"][0].keys() == {"finetune"}
    assert Path("bare/artefact/limbeck.json").is_file()


@pytest.mark.parametrize(("strategy", "steps"), [("search", {"supernet"}), ("both", {"supernet", "prune"})])
def test_compress_searches_when_told_to(strategy, steps, monkeypatch):
    def stop(recipe, *rest, **options):
        raise InputError(dump(recipe))

    monkeypatch.setattr("limbeck.engine.planning.compress.start", stop)
    status, _, err = call("compress", "tuned", "--task", "moods", "--strategy", strategy, "--runtime", "onnxruntime")
    assert status == 2
    assert {name for name in ("supernet", "prune") if f" {name}:" in err} == steps
    assert "evolve" in call("compress", "tuned", "--task", "moods", "--strategy", "evolve")[2]


def test_check_lists_all_problems_at_once():
    wrong = recipe("wrong.yaml", {"prunne": {}}, {"prune": {"keep": 2}}, "quantize", model="nowhere/at/all")
    status, out, _ = call("check", wrong)
    assert status == 2
    assert "3 problems" in out
    assert call("check", recipe("right.yaml", "export"))[:2] == (0, "recipe right.yaml has no problems\n")
    assert len(json.loads(call("check", wrong, "--json")[1])["problems"]) == 3


def test_check_and_plan_note_goals_that_are_medians():
    given = {"budget": {"latency_ms": 2.0, "latency_statistic": "p99"}}
    file = recipe("slowest.yaml", {"prune": {"latency_ms": 1.8}}, **given)
    note = "latency_ms of prune is a median, as costs of shapes are; that of the budget is the p99 of a call"
    status, out, _ = call("check", file)
    assert (status, f"note: {note}" in out) == (0, True)
    assert f"note: {note}" in call("plan", file, "--store", "store")[1]
    for command in (("check", file), ("plan", file, "--store", "store")):
        (text,) = answer(*command)["notes"]
        assert text.startswith(note)
    assert "notes" not in answer("check", recipe("median.yaml", {"prune": {"latency_ms": 1.8}}))


def test_plan_shows_one_row_for_each_probe():
    fewer = {"prune": {"layers": 1, "layer_choice": "importance"}}
    steps = ({"fork": [[], [fewer]]}, {"finetune": {"epochs": 3}}, "size", "quality")
    status, out, _ = call("plan", recipe("planned.yaml", *steps), "--store", "elsewhere")
    assert status == 0
    assert len(re.findall("x2", out)) == 2
    assert "1x32 heads 2 of 16 ffn 32" in out
    assert "texts: 96 train, 48 validation, 48 test" in out
    assert not Path("elsewhere").exists()
    rows = answer("plan", "planned.yaml", "--store", "elsewhere")["rows"]
    assert [row["step"] for row in rows] == ["prune", "finetune", "finetune", "size", "quality"]
    assert all(row["seconds"] > 0 and row["rough"] for row in rows[:3])
    longer = answer("plan", "planned.yaml", "--store", "elsewhere", "--set", "steps.1.finetune.epochs=300")["rows"]
    assert longer[1]["seconds"] > 50 * rows[1]["seconds"]


def test_a_failed_candidate_ends_with_1():
    file = recipe("failing.yaml", {"fork": [[{"prune": {"heads": 7}}], []]}, "size", {"quality": {"split": "test"}})
    status, out, err = call("run", file)
    assert status == 1
    assert "use at most 2" in out
    assert "use at most 2" in err


def test_a_recipe_without_a_choice_says_so():
    status, out, _ = call("run", recipe("all.yaml", {"fork": [["export"], []]}, "size", "quality"))
    assert (status, "The recipe chooses nothing: 2 candidates measured" in out) == (0, True)
    assert "No candidate meets the budget" not in Path("runs/all/report.html").read_text()
    status, _, err = call("run", "all.yaml", "--out", "model")
    assert status == 2
    assert "the recipe chooses no model to write there; end its steps with 'best: {}'" in err


def test_a_budget_that_nothing_meets_ends_with_3_and_the_nearest():
    file = recipe("tight.yaml", {"fork": [["export"], []]}, "size", "quality", "best", budget={"size_mb": 0.001})
    status, out, _ = call("run", file)
    assert status == 3
    assert "No candidate meets the budget. The nearest is" in out
    assert "MB > 0.001 MB" in out


def test_a_choice_that_fails_ends_with_3_as_no_model_is_written(monkeypatch):
    def refuse(*_):
        raise ValueError("no facts to choose by")

    with monkeypatch.context() as patch:
        patch.setattr("limbeck.engine.walk.choose", refuse)
        status, out, _ = call("run", recipe("unchosen.yaml", "export", "size", "quality", "best"))
    assert (status, "no facts to choose by" in out, "artefact:" in out) == (3, True, False)
    assert call("run", "unchosen.yaml")[0] == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("foo", "'foo' is not a setting"),
        ("steps.9.prune.keep=1", "steps has entries 0 to 0, not '9'"),
        ("steps.0.prune.kep=1", "did you mean 'keep'"),
        ("steps.0.prune.keep=2", "should be in (0, 1], got 2"),
        ("steps.0.prune.keep=[", "--set steps.0.prune.keep, line 1"),
        ("sed=1", "did you mean 'seed'"),
        ("seed=abc", "should be a whole number in [0, 4294967295], got 'abc'"),
    ],
)
def test_bad_settings_are_told(setting, message):
    status, _, err = call("run", recipe("set.yaml", {"prune": {"keep": 0.5}}), "--set", setting)
    assert status == 2
    assert message in err


def test_settings_know_short_names():
    file = recipe("short.yaml", {"finetune": {"epochs": 1, "evaluations_per_epoch": 0}})
    assert call("run", file, "--set", "steps.0.finetune.epochs=2", "--set", "seed=1")[0] == 0
    written = yaml.safe_load(Path("runs/short/recipe.yaml").read_text())
    assert written["steps"][0]["finetune"]["num_train_epochs"] == 2
    assert written["seed"] == 1


def test_gc_keeps_what_runs_ended_with():
    assert call("run", recipe("swept.yaml", {"prune": {"heads": 1}}, "export"), "--store", "swept")[0] == 0
    objects = Path("swept/objects")
    assert len(list(objects.iterdir())) == 3
    assert "name the runs" in call("gc", "--store", "swept")[2]
    assert "2 stores" in call("gc", "runs/swept", "--store", "store")[2]
    status, out, err = call("gc", "runs/swept")
    assert (status, "removed 2 models, freed" in out) == (0, True), err
    ledger = Path("runs/swept/ledger.jsonl")
    end, checkpoint = ledger.read_text(), Path("swept/work/0123456789abcdef/checkpoint-1")
    checkpoint.mkdir(parents=True)
    ledger.write_text("".join(end.splitlines(keepends=True)[:-1]))  # a run that was interrupted goes on from it
    assert call("gc", "runs/swept")[0] == 0
    assert checkpoint.is_dir()
    ledger.write_text(end)
    assert call("gc", "runs/swept")[0] == 0
    assert not checkpoint.exists()
    (remaining,) = objects.iterdir()
    assert remaining.name == json.loads(Path("runs/swept/ledger.jsonl").read_text().splitlines()[-1])["front"][0]
    assert call("gc", "--all", "--store", "swept")[0] == 0
    assert not list(objects.iterdir())


def start(store, file):
    environment = {**os.environ, "LIMBECK_STORE": str(store), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-c",
        "from limbeck.cli import main; main()",
        "run",
        str(file),
        "--folder",
        f"{store}-run",
    ]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def weights(store):
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.glob("objects/*/model.safetensors")
    }


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_weights(workspace):
    train = {"epochs": 20, "learning_rate": 1e-3, "save_seconds": 0}
    file = recipe("killed.yaml", {"finetune": train}, {"distill": {**train, "epochs": 2}}, "export", model="bert-moods")
    stores = workspace / "undisturbed", workspace / "disturbed"
    assert start(stores[0], file).wait() == 0
    process = start(stores[1], file)
    while process.poll() is None and not list(stores[1].glob("work/*/checkpoint-*")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(stores[1].glob("work/*/checkpoint*"))
    again = start(stores[1], file)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert len(weights(stores[0])) == 4
    assert weights(stores[1]) == weights(stores[0])


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), RuntimeError("No space left on device (os error 28)")]
)
def test_a_full_disk_leaves_nothing_of_a_saved_model(compressed, tmp_path, monkeypatch, error):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr(files, "_write_torch", fails)
    (key, *_) = keys_of("distill")
    status, _, err = call("save", "run", key, "--to", tmp_path / "saved")
    assert (status, "could not be written: the disk is full" in err) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limit", ["-1", "101", "nan"])
def test_limits_given_to_run_are_checked(limit):
    status, _, err = call("run", recipe("limited.yaml", "quality", "best"), f"--max-flips={limit}")
    assert status == 2
    assert "--max-flips" in err
    assert limit in err


def test_limits_given_to_run_replace_those_of_the_recipe():
    limits = {"size_mb": 0.001, "max_drop": 7.0, "confidence": 0.6}
    file = recipe("replaced.yaml", "export", "size", "quality", "best", teacher="tuned", budget=limits)
    status, _, err = call("run", file, "--size-mb", "100", "--max-flips", "1")
    assert status == 0, err
    budget = yaml.safe_load(Path("runs/replaced/recipe.yaml").read_text())["budget"]
    given = {"size_mb": 100.0, "max_drop": 7.0, "max_flips": 1.0, "confidence": 0.6}
    assert budget == {"latency_ms": None, **given, "latency_statistic": "p50"}
    lines = Path("runs/replaced/front.csv").read_text().splitlines()
    assert "flips_validation" in lines[0]


@pytest.fixture
def two_targets(tmp_path, make_model, monkeypatch):
    """A recipe file for two targets, and the folder that it is in."""
    task = toy_task(train=24, validation=12, test=8)
    tokenizer = toy_tokenizer(task)
    save_model(make_model(labels=3, vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    write_task(task, tmp_path / "reviews")
    steps = "[export, size, quality, {quality: {split: test}}, best]"
    targets = "{server: {threads: 2}, laptop: {budget: {size_mb: 9}}}"
    task = "{path: reviews, max_length: 32}"
    text = f"model: model\nteacher: model\ntask: {task}\ntargets: {targets}\nsteps: {steps}\n"
    (tmp_path / "recipe.yaml").write_text(text + "allow_weak_teacher: true\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_and_plan_show_the_targets(two_targets):
    status, out, _ = call("check", "recipe.yaml")
    assert status == 0
    assert "target server: onnxruntime, 2 threads, batch 1, real lengths; budget: none" in out
    assert "target laptop: onnxruntime, 1 thread, batch 1, real lengths; budget: size_mb 9" in out
    checked = answer("check", "recipe.yaml")
    assert list(checked["targets"]) == ["server", "laptop"]
    status, out, err = call("plan", "recipe.yaml", "--store", "store")
    assert status == 0, err
    assert "quality on server" in out
    assert "target laptop: " in out
    planned = answer("plan", "recipe.yaml", "--store", "store")
    assert planned["targets"] == checked["targets"]
    assert [row["target"] for row in planned["rows"] if row["step"] == "best"] == ["server", "laptop"]


def test_a_run_on_two_targets_writes_and_shows_both(two_targets):
    run = ("run", "recipe.yaml", "--store", "store", "--folder", "run", "--out", "art")
    status, out, err = call(*run, "--size-mb", "0.001")
    assert status == 3, err  # the limit of the command line holds on every target, whatever it had of its own
    assert out.count("size 0") >= 2
    output = answer(*run, "--set", "targets.server.threads=1", statuses=(0, 3))
    assert list(output["targets"]) == ["server", "laptop"]
    assert output["targets"]["server"]["target"] == "onnxruntime, 1 thread, batch 1, real lengths"
    assert output["written"]["artefact laptop"] == str(two_targets / "art" / "laptop")
    assert output["headline"].startswith("server: ")
    assert Path("art/server/limbeck.json").is_file()
    status, _, err = call("evaluate", "art", "--task", "reviews")
    assert (status, "did you mean 'art/server'" in err) == (2, True)
    assert "accuracy" in call("evaluate", "art/laptop", "--task", "reviews", "--max-length", "32")[1]
    assert call("report", "run", "--store", "store")[0] in (0, 3)
    status, _, err = call(*run, "--target", "http://board:1")
    assert (status, "say whose machine that is, as in --set targets.server.url=http://board:1" in err) == (2, True)
