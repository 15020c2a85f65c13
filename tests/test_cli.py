"""The command line on tiny real models: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar
from unittest import mock

import pytest
import yaml

from limbeck.cli import main
from limbeck.data.synthetic import toy_task, toy_tokenizer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TRAIN = ("--epochs", "40", "--learning-rate", "3e-3", "--evaluations-per-epoch", "0")


def call(*arguments, stdin=""):
    """The exit status of a command, its standard output and its standard error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["limbeck", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code, out.getvalue(), err.getvalue()


def answer(*arguments, **options):
    """What a command prints with --json, having gone well."""
    status, out, err = call(*arguments, "--json", **options)
    assert status == 0, out + err
    return json.loads(out)


def write_task(task, folder):
    folder.mkdir()
    for name, split in task.splits.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.DictWriter(stream, ["text", "pair", "label"] if split.pairs else ["text", "label"])
            rows.writeheader()
            rows.writerows({**row, "label": task.label_names[row["label"]]} for row in split.to_rows())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two tasks as CSV files, an encoder without a head for each, and one that is fine-tuned."""
    import torch
    from transformers import BertConfig, BertModel

    place = tmp_path_factory.mktemp("place")
    for task, name in ((toy_task(train=96, validation=48, test=48), "moods"), (toy_task("pairs", train=64), "pairs")):
        write_task(task, place / name)
        tokenizer = toy_tokenizer(task)
        tokenizer.save_pretrained(place / f"bert-{name}")
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SMALL)
        with contextlib.redirect_stderr(io.StringIO()):
            BertModel(config).save_pretrained(place / f"bert-{name}")
    with contextlib.chdir(place), mock.patch.dict(os.environ, LIMBECK_STORE=str(place / "store")):
        found = answer("finetune", "--model", "bert-moods", "--task", "moods", "--out", "tuned", *TRAIN)
        assert found["shape"] == "2x32 heads 2 of 16 ffn 32"
    return place


@pytest.fixture(autouse=True)
def _inside(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("LIMBECK_STORE", str(place / "store"))


@pytest.fixture(scope="module")
def compressed(place):
    """What the main job prints, for a model that answers the task already."""
    with contextlib.chdir(place), mock.patch.dict(os.environ, LIMBECK_STORE=str(place / "store")):
        about = ("--task", "moods", "--effort", "quick", "--latency-ms", "200", "--max-drop", "50")
        return answer("compress", "tuned", *about, "--folder", "run", "--out", "art")


def keys_of(step):
    events = map(json.loads, Path("run/ledger.jsonl").read_text().splitlines())
    records = [event["record"] for event in events if event["event"] == "record"]
    return [record["key"] for record in records if record["step"] == step]


# --- help -----------------------------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy():
    program = (
        "import sys; sys.argv = ['limbeck', '--help']\n"
        "from limbeck.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'numpy', 'scipy', 'pydantic', 'datasets', 'accelerate'}\n"
        "sys.exit(sorted(heavy & set(sys.modules)) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert {"compress", "run", "evaluate", "prune", "distill"} <= set(re.findall(r"^│ (\w+)", found.stdout, re.M))


def test_python_m_limbeck_is_the_command():
    found = subprocess.run([sys.executable, "-m", "limbeck", "--version"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout.strip()) == (0, version("limbeck"))


def test_help_of_a_technique_shows_its_fields_and_short_names():
    status, out, _ = call("distill", "--help")
    assert status == 0
    assert {"--teacher", "--epochs", "--match", "--temperature"} <= set(re.findall(r"--[a-z-]+", out))


# --- compress -------------------------------------------------------------------------------------------------------


def test_compress_takes_a_model_that_answers_the_task_as_teacher(compressed):
    recipe = yaml.safe_load(Path("run/recipe.yaml").read_text())
    assert recipe["teacher"] == recipe["model"] == "tuned"
    assert "finetune" not in str(recipe["steps"])
    assert len(compressed["rows"]) == 4
    teacher = next(row for row in compressed["rows"] if row["key"] == compressed["teacher"])
    assert teacher["size_mb"] > 0
    assert compressed["unmet"] == []
    assert Path(compressed["written"]["report"]).read_text().startswith("<!doctype html>")


def test_the_artefact_answers_with_onnxruntime_and_tokenizers_alone(compressed):
    (code,) = re.findall(r"```python\n(.*?)```", Path("art/README.md").read_text(), re.S)[:1]
    absent = "import sys\nfor name in ('torch', 'transformers', 'limbeck'): sys.modules[name] = None\n"
    found = subprocess.run(
        [sys.executable, "-c", absent + code], cwd="art", capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() in {"sad", "happy", "angry"}
    about = json.loads(Path("art/limbeck.json").read_text())
    assert (Path("art") / about["onnx_file"]).is_file()
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
    assert (status, "is not empty" in err) == (2, True)


@pytest.mark.slow
def test_compress_fine_tunes_a_bare_encoder(place):
    command = [sys.executable, "-c", "from limbeck.cli import main; main()", "compress", "bert-moods"]
    command += ["--task", "moods", "--effort", "quick", "--latency-ms", "0.001", "--folder", "bare"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 3, found.stderr
    assert "No candidate meets the budget. The nearest is" in found.stdout
    assert yaml.safe_load(Path("bare/recipe.yaml").read_text())["steps"][0].keys() == {"finetune"}
    assert Path("bare/artefact/limbeck.json").is_file()


# --- recipes --------------------------------------------------------------------------------------------------------


def recipe(name, *steps, **more):
    Path(name).write_text(yaml.safe_dump({"model": "tuned", "task": "moods", **more, "steps": list(steps)}))
    return name


def test_check_lists_all_problems_at_once():
    wrong = recipe("wrong.yaml", {"prunne": {}}, {"prune": {"keep": 2}}, "quantize", model="nowhere/at/all")
    status, out, _ = call("check", wrong)
    assert status == 2
    assert "3 problems" in out
    assert call("check", recipe("right.yaml", "export"))[:2] == (0, "recipe right.yaml has no problems\n")
    assert len(json.loads(call("check", wrong, "--json")[1])["problems"]) == 3


def test_plan_shows_one_row_for_each_probe():
    steps = ({"fork": [[], [{"prune": {"layers": 1}}]]}, {"finetune": {"epochs": 3}}, "size", "quality")
    status, out, _ = call("plan", recipe("planned.yaml", *steps), "--store", "elsewhere")
    assert status == 0
    assert len(re.findall("x2", out)) == 2
    assert "1x32 heads 2 of 16 ffn 32" in out
    assert "texts: 96 train, 48 validation, 48 test" in out
    assert not Path("elsewhere").exists()
    rows = answer("plan", "planned.yaml", "--store", "elsewhere")["rows"]
    assert [row["step"] for row in rows] == ["prune", "finetune", "finetune", "size", "quality"]
    assert all(row["seconds"] > 0 and row["rough"] for row in rows[:3])


def test_a_failed_candidate_ends_with_1():
    file = recipe("failing.yaml", {"fork": [[{"prune": {"heads": 7}}], []]}, "size", {"quality": {"split": "test"}})
    status, out, err = call("run", file)
    assert status == 1
    assert "use at most 2" in out
    assert "use at most 2" in err


def test_a_budget_that_nothing_meets_ends_with_3_and_the_nearest():
    file = recipe("tight.yaml", {"fork": [["export"], []]}, "size", "quality", "best", budget={"size_mb": 0.001})
    status, out, _ = call("run", file)
    assert status == 3
    assert "No candidate meets the budget. The nearest is" in out
    assert "MB > 0.001 MB" in out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("foo", "'foo' is no setting"),
        ("steps.9.prune.keep=1", "steps has entries 0 to 0, not '9'"),
        ("steps.0.prune.kep=1", "did you mean 'keep'"),
        ("steps.0.prune.keep=2", "should be in (0, 1], got 2"),
        ("steps.0.prune.keep=[", "--set steps.0.prune.keep, line 1"),
        ("sed=1", "did you mean 'seed'"),
        ("seed=abc", "should be a whole number, got 'abc'"),
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
    (kept,) = objects.iterdir()
    assert kept.name == json.loads(Path("runs/swept/ledger.jsonl").read_text().splitlines()[-1])["front"][0]
    assert call("gc", "--all", "--store", "swept")[0] == 0
    assert not list(objects.iterdir())


# --- one model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_evaluate_in_every_runtime(compressed, runtime):
    if runtime == "openvino" and importlib.util.find_spec("openvino") is None:
        assert call("evaluate", "art", "--task", "moods", "--runtime", runtime)[0] == 2
        pytest.skip("openvino is not installed")
    if runtime == "openvino" and "quantized" in json.loads(Path("art/limbeck.json").read_text())["onnx_file"]:
        status, _, err = call("evaluate", "art", "--task", "moods", "--runtime", runtime)  # the fastest was INT8
        assert (status, "QAttention" in err) == (2, True)
        return
    found = answer("evaluate", "art", "--task", "moods", "--runtime", runtime)
    assert found["examples"] == 48
    assert found["quality"] > 0.9
    assert found["runtime"].startswith(runtime)
    assert found["total_ms"] == pytest.approx(48 * found["mean_ms"])


def test_evaluate_in_words_and_not_without_a_head():
    status, out, _ = call("evaluate", "tuned", "--task", "moods", "--split", "validation", "--batch", 8)
    assert status == 0
    assert re.search(r"accuracy: \d\.\d{4} \[.*\], n 48\nelapsed: .* ms on average \(torch eager, .*batch 8\)", out)
    status, _, err = call("evaluate", "bert-moods", "--task", "moods")
    assert (status, "no trained head" in err) == (2, True)


def test_options_that_cannot_be_are_told_before_any_work():
    for option in ("--threads", "--batch"):
        status, _, err = call("evaluate", "tuned", "--task", "moods", option, 0)
        assert (status, err) == (2, f"error: {option[2:]} should be at least 1, got 0\n")
    with mock.patch("limbeck.measure.profile.profile", side_effect=AssertionError("measured")):
        status, _, err = call("profile", "--out", "nowhere/machine.json")
    assert (status, err) == (2, "error: --out nowhere/machine.json: there is no folder nowhere\n")


def test_an_error_of_the_system_is_one_line():
    with mock.patch("limbeck.measure.profile.profile", side_effect=OSError(5, "Input/output error", "disk")):
        status, _, err = call("profile")
    assert (status, err) == (2, "error: [Errno 5] Input/output error: 'disk'\n")


def test_predict_from_arguments_and_standard_input():
    status, out, _ = call("predict", "tuned", "the sunny merry film", "gloomy and bleak")
    assert (status, out) == (0, "happy\tthe sunny merry film\nsad\tgloomy and bleak\n")
    (found,) = answer("predict", "tuned", stdin="furious\n")
    assert found["answer"] == "angry"
    assert sum(found["scores"].values()) == pytest.approx(1)
    status, _, err = call("predict", "bert-moods", "sunny")
    assert (status, "no trained head" in err) == (2, True)


def test_predict_pairs():
    train = ("--epochs", "1", "--evaluations-per-epoch", "0")
    answer("finetune", "--model", "bert-pairs", "--task", "pairs", "--out", "tuned-pairs", *train)
    found = answer("predict", "tuned-pairs", "sunny", "merry", "--pair", "gloomy", "--pair", "merry")
    assert [row["answer"] in {"sad", "happy"} for row in found] == [True, True]
    status, _, err = call("predict", "tuned-pairs", "sunny", "merry", "--pair", "gloomy")
    assert (status, "2 texts but 1 second" in err) == (2, True)


def test_profile():
    call("profile", "--out", "machine.json")
    assert {"processor", "cores", "versions"} <= json.loads(Path("machine.json").read_text()).keys()


# --- techniques -----------------------------------------------------------------------------------------------------


def test_one_technique_after_another():
    pruned = answer("prune", "--model", "tuned", "--task", "moods", "--heads", 1, "--ffn", 16, "--out", "pruned")
    assert pruned["shape"] == "2x32 heads 1 of 16 ffn 16"
    train = ("--epochs", "1", "--evaluations-per-epoch", "0", "--match", "logits", "hidden")
    answer("distill", "--model", "pruned", "--teacher", "tuned", "--task", "moods", "--out", "student", *train)
    status, _, err = call("quantize", "--model", "student", "--task", "moods", "--out", "int8")
    assert status == 2
    assert "put 'export' before it" in err
    answer("export", "--model", "student", "--task", "moods", "--out", "exported", "--parity-texts", 8)
    answer("quantize", "--model", "exported", "--task", "moods", "--out", "int8")
    assert Path("int8/onnx/model_quantized.onnx").is_file()
    assert answer("evaluate", "int8", "--task", "moods")["runtime"] == "onnxruntime, model_quantized.onnx"


def test_a_technique_that_changes_the_task_writes_it():
    about = ("--model", "bert-moods", "--task", "moods", "--n-iter", 2)  # a head that nobody trained is no obstacle
    made = answer("augment", *about, "--out", "more")
    assert Path(made["task"]) == Path("more/task")
    assert len(Path("more/task/train.jsonl").read_text().splitlines()) > 150
    status, out, _ = call("augment", *about, "--out", "more-too")
    assert (status, "give it to --task" in out) == (0, True)
    assert Path("more-too/task/train.jsonl").read_bytes() == Path("more/task/train.jsonl").read_bytes()
    answer("finetune", "--model", "bert-moods", "--task", "more/task", "--out", "taught", "--epochs", 0.2)
    status, _, err = call("augment", *about[:4], "--guard", "drop", "--out", "never")
    assert (status, "needs a teacher" in err) == (1, True)
    status, _, err = call("augment", *about[:4], "--mlm", "bert", "--out", "never")
    assert (status, "for method: tinybert, got method: ngram" in err) == (2, True)
    assert not Path("never").exists()


def test_a_technique_refuses_before_it_works():
    status, _, err = call("prune", "--model", "tuned", "--task", "moods", "--keep", 1.5, "--out", "never")
    assert status == 2
    assert "should be in (0, 1], got 1.5" in err
    status, out, err = call("prune", "--model", "tuned", "--task", "moods", "--kep", 0.5, "--out", "never")
    assert (status, "Did you mean --keep?" in out + err) == (2, True)
    status, _, err = call("prune", "--model", "bert-moods", "--task", "moods", "--ffn", 16, "--out", "never")
    assert (status, "no trained head" in err) == (2, True)
    status, out, _ = call("prune", "--model", "tuned", "--task", "moods", "--heads", 7, "--out", "never", "--json")
    assert (status, len(json.loads(out)["failed"])) == (1, 1)
    assert not Path("never").exists()


def test_trackers():
    train = ("finetune", "--model", "bert-moods", "--task", "moods", "--epochs", "1", "--out", "tracked")
    status, _, err = call(*train, "--track", "nonsense")
    assert (status, "no tracker 'nonsense'" in err) == (2, True)
    if importlib.util.find_spec("tensorboard") is None:
        status, _, err = call(*train, "--track", "tensorboard")
        assert (status, "pip install tensorboard" in err) == (2, True)
        assert not Path("tracked").exists()
    else:
        assert call(*train, "--track", "tensorboard")[0] == 0
        assert list(Path("runs/tracking").rglob("events.out.tfevents*"))


@dataclass(frozen=True)
class Knobs:
    share: float = 0.5
    count: int = 1
    presets: ClassVar[dict[str, Any]] = {"wide": {"count": 7, "share": 1.0}}


def test_a_preset_leaves_what_was_given():
    """On the command line as in a recipe: a field that was given wins, even with its usual value."""
    from cyclopts import App, Parameter

    from limbeck.cli import _options

    kind, seen = _options(Knobs), []

    def command(*, options=kind()):  # noqa: B008 frozen
        seen.append(options.given)

    command.__annotations__["options"] = Annotated[kind, Parameter(name="*")]
    app = App()
    app.default(command)
    for line in ("--preset wide --share 0.5", "--count 3", ""):
        app(line.split(), exit_on_error=False, result_action="return_value")
    assert seen == [{"share": 0.5, "preset": "wide"}, {"count": 3}, {}]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app(["--help"], exit_on_error=False, result_action="return_value")
    told = " ".join(re.sub(r"[^\w\s().:;,-]", " ", out.getvalue()).split())
    assert "wide (count 7, share 1.0)" in told
    assert "default: 0.5" in told


# --- interrupted ----------------------------------------------------------------------------------------------------


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
def test_killed_and_run_again_gives_the_same_weights(place):
    train = {"epochs": 60, "learning_rate": 1e-3, "save_seconds": 0}
    file = recipe("killed.yaml", {"finetune": train}, {"distill": {**train, "epochs": 2}}, "export", model="bert-moods")
    stores = place / "undisturbed", place / "disturbed"
    assert start(stores[0], file).wait() == 0
    process = start(stores[1], file)
    while process.poll() is None and not list(stores[1].glob("work/*/checkpoint-*")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(stores[1].glob("work/*/checkpoint*"))
    again = start(stores[1], file)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert len(weights(stores[0])) == 4
    assert weights(stores[1]) == weights(stores[0])


@pytest.mark.parametrize("name", ["finetune", "distill", "meta_pseudo_labels", "prune", "export", "quantize"])
def test_every_field_of_a_technique_has_a_help(name):
    from dataclasses import fields

    import limbeck.techniques  # noqa: F401
    from limbeck.cli import _field_helps
    from limbeck.core.step import REGISTRY

    helps = _field_helps(REGISTRY[name])
    assert set(helps) == {one.name for one in fields(REGISTRY[name])}
    assert all(text.endswith(".") for text in helps.values())
