"""Commands of the pages run in the order in which they need each other, on a tiny model and task of the same names."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pages
import pandas
import pytest
import torch
from commands import TRAIN, answer, call, recipe, write_retrieval, write_task
from transformers import BertConfig, BertModel

from limbeck.benchmark import grid
from limbeck.cost_models import collection
from limbeck.data.synthetic import toy_task, toy_tokenizer

NAMES = {"minilm-l6": "encoder", "MODEL": "encoder", "movie-reviews": "reviews", "TASK": "reviews", "positive": "happy"}
NAMES["cuda"] = "cpu"
FASTER = {"--epochs": "1", "--intermediate-epochs": "1", "--threads": "1"}
OF_RUNS = {"run", "plan", "check", "recipes", "report", "lineage", "save"}
ELSEWHERE = {*OF_RUNS, "bench", "profile", "predictor", "compress", "measure"}
"""Commands of whole runs and of machines, which have tests below."""
ALL_PAGES = [
    pages.ROOT / "README.md",
    *(path for path in sorted(pages.DOCS.rglob("*.md")) if path.parent.name != "decisions"),
]
OTHERS = re.compile(r"is not installed|machine\.jsonl: there is no such file")
"""What a page may need beyond this machine: a library, and latencies of another machine."""
BRIEFLY = ("--epochs", "1", "--min-steps", "1", "--allow-weak-teacher")

STEPS = ("finetune", "vocabulary", "prune", "student_init", "supernet", "linearize", "meta_pseudo_labels", "distill")
STEPS += ("early_exit", "export", "augment", "weight_sharing", "prune_tokens")
RECIPES = ("tinybert", "fastformers", "mpl", "linearize", "bigger-and-faster")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder as deep and with as many heads as MiniLM, a task as folder and as file, and no saved latencies."""
    folder = tmp_path_factory.mktemp("commands")
    task = toy_task(train=32, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes)
    with contextlib.redirect_stderr(io.StringIO()):
        BertModel(config).save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    write_task(task, folder / "reviews")
    write_retrieval(folder / "data" / "cranfield")
    shutil.copy(folder / "reviews" / "train.csv", folder / "reviews.csv")
    return folder


@pytest.fixture(autouse=True)
def _inside(folder, monkeypatch, brief_tables):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMBECK_STORE", str(folder / "store"))


def as_here(words):
    """The same command for the tiny model, with little training."""
    words = [NAMES.get(word, word) for word in words]
    if words[0] == "search":
        few = {"--at-least": "0.3", "--population": "4", "--generations": "1"}  # it has few shapes
        words += [word for option, value in few.items() if option not in words for word in (option, value)]
    return [FASTER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def runnable(page):
    """The commands of a page that need nothing but a model, a task and what came out before."""
    text = (pages.DOCS / f"{page}.md").read_text(encoding="utf-8")
    for words in pages.commands(text):
        of_a_run = any(
            word.startswith(("runs/", "reviews-models/")) or word in ("machine.jsonl", "predictor.json")
            for word in words
        )
        if words[0] not in ELSEWHERE and not of_a_run:
            yield as_here(words)


def carry_out(words, statuses=(0,)):
    for option in {"--out", "--to"}.intersection(words):
        shutil.rmtree(words[words.index(option) + 1], ignore_errors=True)
    if words[0] == "compress":  # one small model stands for those of several pages; its folder is that of one task
        shutil.rmtree(Path("runs") / f"compress-{Path(words[1]).name}", ignore_errors=True)
    status, out, err = call(*words)
    assert status in statuses, f"limbeck {' '.join(words)}\n{out}\n{err}"


def of_runs(path):
    """The commands of a page that plan, carry out or inspect a run."""
    return [words for words in pages.commands(path.read_text(encoding="utf-8")) if words[0] in OF_RUNS]


def of_one_run(words):
    return {"recipe.yaml", "two-targets.yaml", "runs/quickstart"}.intersection(words)


@pytest.fixture(scope="module")
def small(folder):
    """A model of two layers, for runs that make many."""
    with contextlib.chdir(folder), mock.patch.dict(os.environ, {"LIMBECK_STORE": str(folder / "store")}):
        answer("student_init", "--model", "encoder", "--task", "reviews", "--layers", "2", "--out", "small-encoder")
    return "small-encoder"


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_commands_of_techniques_run_one_after_the_other():
    for step in STEPS:
        commands = list(runnable(f"techniques/{step}"))
        assert commands, step
        for words in commands:
            carry_out(words)
            assert any(Path(words[words.index("--out") + 1]).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("page", RECIPES)
def test_the_steps_of_a_recipe_run_by_themselves(page):
    commands = list(runnable(f"recipes/{page}"))
    assert len(commands) >= 2
    for words in commands:
        carry_out(words)


@pytest.mark.slow
def test_commands_of_guides_run():
    with mock.patch.dict(os.environ):
        answer("finetune", "--model", "encoder", "--task", "reviews", "--out", "small", *TRAIN)
    moods = ("angry", "happy", "sad")
    lines = [f"remark {row} of a buyer;{moods[row % 3]}" for row in range(24)]
    for page, table in (("index", None), ("guides/machines", None), ("guides/data", ["remark;rude", *lines])):
        if table:
            Path("reviews.csv").write_text("\n".join(table), encoding="utf-8")
        for words in runnable(page):
            carry_out(["small" if word == "encoder" else word for word in words])


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_commands_of_rerankers_follow_each_other(small):
    """They compress, predict and evaluate one model."""
    pytest.importorskip("bm25s")
    page = (pages.DOCS / "guides" / "rerankers.md").read_text(encoding="utf-8")
    names = []
    for words in pages.commands(page):
        names.append(words[0])
        more = (*BRIEFLY, "--effort", "one-shot") if words[0] == "compress" else ()
        words = [{"50": "3", "candidates=50": "candidates=3"}.get(word, word) for word in as_here([*words, *more])]
        carry_out([small if word == "encoder" else word for word in words], statuses=(0, 1, 3))
    assert names == ["compress", "predict", "evaluate"]


@pytest.mark.slow
def test_commands_of_one_run(small):
    """They check, plan and run a small recipe under the names that the pages use, and inspect the result."""
    steps = [{"finetune": {"epochs": 1}}, {"export": {}}, {"quality": {}}, {"latency": {"rounds": 2}}, {"cheapest": {}}]
    recipe("recipe.yaml", *steps, model=small, task="reviews", allow_weak_teacher=True)
    targets = {"server": {"threads": 2}, "laptop": {}}
    recipe("two-targets.yaml", *steps, model=small, task="reviews", allow_weak_teacher=True, targets=targets)
    Path("cluster.yaml").write_text("executor: {executor: processes, workers: 1, threads: 1}\n", encoding="utf-8")
    result = answer("run", "recipe.yaml", "--folder", "runs/quickstart", statuses=(0, 3))
    commands = [words for path in ALL_PAGES for words in of_runs(path) if of_one_run(words)]
    assert {words[0] for words in commands} == OF_RUNS - {"recipes"}
    for words in commands:
        carry_out([result["teacher"] if word == "KEY" else word for word in words], statuses=(0, 3))
    assert Path("runs/quickstart/report.html").is_file()
    carry_out(["evaluate", "reviews-models/laptop", "--task", "reviews"])
    assert Path("small/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in ALL_PAGES if any(not of_one_run(words) for words in of_runs(path))])
def test_runs_of_a_page_can_be_planned(path, folder):
    """Each run in the settings that the page shows, on the small model and task: a dry run reads both."""
    texts = [f"remark {row}" for row in range(24)]
    table = pandas.DataFrame({"body": texts, "stars": ["good", "bad"] * 12})
    for name in ("all.csv", "new.csv"):
        table.to_csv(name, index=False)
    table.to_parquet("reviews.parquet")
    for name in ("texts.txt", "sentences.txt", "glove.6B.300d.txt"):
        Path(name).write_text("\n".join(texts), encoding="utf-8")
    Path("data/sst2").mkdir(parents=True, exist_ok=True)
    for name in ("train", "valid", "test"):
        lines = [f"{text}\t{label}" for text, label in zip(table.body, table.stars, strict=True)]
        Path(f"data/sst2/{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    for words in of_runs(path):
        if words[0] in ("run", "plan") and not of_one_run(words):
            changes = [
                word.replace("movie-reviews", "reviews") for before, word in pairwise(words) if before == "--set"
            ]
            changes = ["model=encoder", "task=reviews", *changes]
            status, out, err = call("plan", words[1], *(word for change in changes for word in ("--set", change)))
            missing = [OTHERS.search(problem) for problem in err.splitlines()[1:]]
            assert status == 0 or (missing and all(missing)), f"{words}\n{out}\n{err}"


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_commands_that_compress_a_model(small):
    commands = [words for path in ALL_PAGES for words in pages.commands(path.read_text(encoding="utf-8"))]
    names = NAMES | {"reviews.csv": "reviews"}  # of one task, so that they share their work in the store
    commands = [[names.get(word, word) for word in words] for words in commands if words[0] == "compress"]
    commands = [words for words in commands if not {"--target", "--device"}.intersection(words)]
    assert len(commands) >= 5
    for words in dict.fromkeys(tuple(words) for words in commands):
        effort = () if "--effort" in words else ("--effort", "one-shot")
        # 1: so small a model cannot be pruned to every goal
        carry_out([small if word == "encoder" else word for word in (*words, *BRIEFLY, *effort)], statuses=(0, 1, 3))


def all_commands(*names):
    """The commands of these names on all pages, each once."""
    commands = [words for path in ALL_PAGES for words in pages.commands(path.read_text(encoding="utf-8"))]
    return [list(words) for words in dict.fromkeys(map(tuple, commands)) if words[0] in names]


def with_values(words, values):
    """The command with other values of these options; those that it lacks are added."""
    arguments, option = [], ""
    for word in words:
        option = word if word.startswith("--") else option
        if option not in values:
            arguments.append(word)
    return [*arguments, *(word for name, given in values.items() for word in (name, *given))]


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_commands_that_time_and_train_grids(monkeypatch):
    """On the tiny encoder, with two miniatures; the checkpoints of miniatures are on the hub alone."""
    monkeypatch.setattr(grid.miniatures, "__defaults__", ((2,), (128, 192)))
    monkeypatch.setattr(grid, "MINIATURE_LAYERS", (2, 4))
    monkeypatch.setattr(grid, "MINIATURE_WIDTHS", (48, 96))
    names = NAMES | {"teacher": "encoder", "sst2": "reviews"}
    commands = [[names.get(word, word) for word in words] for words in all_commands("bench")]
    assert len(commands) > 15
    for words in commands:
        if "pretrained" in words:
            continue
        changes = {"--trials": ["1"], "--calls": ["3"]}
        if "random" not in words:
            changes["--base"] = ["encoder"]
        if "--lengths" in words:
            changes["--lengths"] = ["8", "24"]
        elif "--task" not in words:
            changes["--seq-len"] = ["8"]
        if "--train" in words:
            changes |= {"--epochs": ["1"], "--train-samples": ["16"], "--train-batch-size": ["8"]}
        if {"--train", "--weight-shared"}.intersection(words):  # slices of the encoder, which has 6 layers
            words = [str(min(int(word), 6)) if word.isdecimal() else word for word in words]
        carry_out(with_values(words, changes))


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_commands_that_profile_a_machine_and_fit_predictors(folder, tmp_path, monkeypatch):
    """In a folder of their own: other tests expect that there are no latencies of another machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(collection, "MOST", 1)
    tiny = {"--model": [str(folder / "encoder")], "--samples": ["20"], "--seq-len": ["8"], "--number-format": ["int8"]}
    commands = all_commands("profile", "predictor")
    assert {words[0] for words in commands} == {"profile", "predictor"}
    carry_out(["profile", "--full", "--out", "other.jsonl", *with_values(["--seed", "1"], tiny)])
    for words in sorted(commands, key=lambda words: words[0] == "predictor"):
        if "--full" in words or "--measure" in words:
            own = {"--hidden": ["48", "48"]} if "--hidden" in words else {}
            words = with_values(words, tiny | own)
        carry_out(words)
    assert {"machine.jsonl", "predictor.json", "small.json"} <= {path.name for path in tmp_path.iterdir()}


def test_commands_of_a_measuring_service(monkeypatch, tmp_path):
    """The service would listen, and what asks for it is refused for the lack of its machine alone."""
    monkeypatch.setenv("LIMBECK_TOKEN", "0123456789abcdef")
    monkeypatch.chdir(tmp_path)
    for name in ("cert.pem", "key.pem"):
        Path(name).touch()
    served = all_commands("measure")
    assert served
    for words in served:
        with mock.patch("limbeck.measure.service.server.serve") as serve:
            carry_out(words)
        serve.assert_called_once()


@pytest.mark.slow
def test_commands_with_a_target_need_only_its_machine(small):
    commands = [words for words in all_commands("compress", "run") if "--target" in words]
    assert commands
    for words in commands:
        names = NAMES | {"reviews.csv": "reviews"}
        status, _, err = call(*[names.get(word, word) for word in words])
        assert (status, bool(OTHERS.search(err) or "cannot be reached" in err)) == (2, True), err
