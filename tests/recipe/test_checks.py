"""All problems of a recipe are told at once, each with its place."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from limbeck.core.early_exits import EarlyExits
from limbeck.core.kinds import KINDS
from limbeck.core.shape import Shape
from limbeck.core.target import Budget, Target
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError, RecipeError
from limbeck.model.checkpoints import save_model
from limbeck.model.early_exits import add_exits, set_rule
from limbeck.recipe.checks import before_training, check_length, unsuited_fields, unsuited_limits
from limbeck.recipe.parsing import locate
from limbeck.recipe.recipe import Fork, Recipe, check, parse


def problems(*steps, **more):
    data = {"model": "bert", "task": "movie-reviews", "steps": list(steps), **more}
    return [str(problem) for problem in check(data)]


@pytest.mark.parametrize(
    ("max_length", "seq_len", "message"),
    [(64, 64, ""), (128, None, "give the task 'max_length: 64"), (32, 100, "target.seq_len is 100")],
)
def test_texts_longer_than_the_positions_are_refused(tmp_path, make_model, max_length, seq_len, message):
    task = replace(toy_task(train=9), max_length=max_length)
    save_model(make_model(max_positions=64, vocab_size=60), toy_tokenizer(task), tmp_path)
    with pytest.raises(InputError, match=message) if message else nullcontext():
        check_length(str(tmp_path), task, seq_len)


def test_all_problems_at_once(toys):
    reported = problems(
        {"toy-prunne": {}},
        {"toy-prune": {"keep": 1.5}},
        {"toy-train": {"epoch": 1, "kind": "fancier"}},
        {"toy-imitate": {}},
        {"toy-export": {}},
        {"toy-prune": {}},
        stepz=[],
        target={"thread": 1},
        budget={"latency_ms": -1},
    )
    assert reported == [
        "stepz: a recipe has no 'stepz'; did you mean 'steps'?",
        "target.thread: no field called 'thread'; did you mean 'threads'?",
        "budget.latency_ms: should be in (0, 10,000,000], got -1",
        "steps[0]: no step called 'toy-prunne'; did you mean 'toy-prune'?",
        "steps[1].toy-prune.keep: should be in (0, 1], got 1.5",
        "steps[2].toy-train.epoch: no field called 'epoch'; did you mean 'epochs'?",
        "steps[2].toy-train.kind: cannot be 'fancier'; did you mean 'fancy'?",
        "steps[5] toy-prune: needs 'torch'; 'toy-export' (steps[4]) removes it; put this step before it",
    ]


def test_parse_raises_them_in_one_error(toys):
    with pytest.raises(RecipeError) as error:
        parse({"model": "bert", "steps": [{"toy-prune": {"keep": 0}}, "toy-imitate"]}, name="mine")
    lines = str(error.value).splitlines()
    assert lines[0] == "recipe mine has 3 problems:"
    assert lines[1].startswith("  task: is required")
    assert lines[2] == "  steps[0].toy-prune.keep: should be in (0, 1], got 0"
    assert lines[3].startswith(
        "  steps[1] toy-imitate: needs 'teacher'; put 'finetune' or 'toy-train' before it, or name one"
    )


def test_traits_inside_forks(toys):
    reported = problems(
        "toy-train", {"fork": [["toy-export"], []]}, "toy-prune", {"fork": [[], ["toy-export", "toy-prune"]]}
    )
    assert reported == [
        "steps[2] toy-prune: needs 'torch'; 'toy-export' (steps[1].fork[0][0]) removes it; put this step before it",
        "steps[3].fork[1][1] toy-prune: needs 'torch'; 'toy-export' (steps[3].fork[1][0]) removes it; "
        "put this step before it",
    ]


def test_a_combination_takes_the_candidates_that_suit_it():
    probes = ["quality", "latency"]
    assert problems({"finetune": {}}, {"fork": [[], ["export"], ["export", "quantize"]]}, *probes, "cascade") == []
    reported = problems({"finetune": {}}, *probes, "cascade")
    assert reported == ["steps[3] cascade: needs 'onnx'; put 'export' before it"]


def test_the_hidden_width_is_cut_before_tokens_are(make_model, tmp_path):
    tokens, training = {"prune_tokens": {"keep": 0.5}}, {"finetune": {}}
    assert problems(training, {"prune": {"hidden": 96}}, tokens) == []
    assert problems(training, tokens, training, {"prune": {"heads": 2}}) == []
    message = "hidden: needs layers that read all tokens of a text; put prune before prune_tokens"
    chosen = {"prune": {"keep": 0.5, "cost": "macs", "hidden": "auto", "tokens": "auto"}}
    assert problems(training, chosen) == []
    assert problems(training, chosen, training, chosen) == [f"steps[3].prune: {message}"]
    each = {"each": {"prune": {"hidden": [96, 64]}}}
    reported = problems(training, {"fork": [[], [tokens], [tokens, training]]}, each)
    assert reported == [f"steps[2].each.prune: {message}"]
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64).with_tokens(0.5, 0.5)
    save_model(make_model(shape, layer_tokens=[0.5, 0.5]), toy_tokenizer(toy_task(train=9)), tmp_path)
    assert problems(training, {"prune": {"hidden": 24}}, model=str(tmp_path)) == [f"steps[1].prune: {message}"]


def test_a_teacher_in_the_recipe_is_enough(toys):
    assert problems("toy-imitate", teacher="other") == []


@pytest.mark.parametrize(
    ("steps", "more", "missing"),
    [
        ([{"finetune": {}}, {"linearize": {"guide": "waypoint"}}], {}, True),
        ([{"finetune": {"keep": "every_epoch"}}, {"linearize": {"guide": "waypoint"}}], {}, False),
        ([{"finetune": {}}, {"finetune": {"keep": "every_epoch"}}, {"linearize": {"guide": "waypoint"}}], {}, True),
        ([{"finetune": {"keep": "every_epoch"}}, {"finetune": {}}, {"linearize": {"guide": "waypoint"}}], {}, False),
        ([{"finetune": {"keep": "every_epoch"}}, {"linearize": {"guide": "waypoint"}}], {"teacher": "other"}, True),
        ([{"finetune": {}}, {"linearize": {"guide": "unguided", "start": "pretrained"}}], {}, True),
        ([{"finetune": {}}, {"linearize": {"guide": "target"}}], {}, False),
        ([{"fork": [[{"finetune": {}}], []]}, {"linearize": {"guide": "waypoint"}}], {"teacher": "other"}, True),
    ],
)
def test_epochs_that_the_teacher_will_not_have_are_reported_before_training(steps, more, missing):
    reported = problems(*steps, **more)
    assert len(reported) == int(missing)
    assert not reported or "needs the weights that the teacher's fine-tuning kept" in reported[0]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (["toy-train"], "steps[0]: should be one step"),
        ({"toy-train": {}, "toy-prune": {}}, "steps[0]: should be one step"),
        ({"toy-train": 3}, "steps[0].toy-train: should be a mapping of fields, got 3"),
        ({"toy-train": {"epochs": "x"}}, "steps[0].toy-train.epochs: should be a whole number, got 'x'"),
        ({"toy-train": {"rate": {"begin": 1}}}, "steps[0].toy-train.rate"),
        ({"fork": {"a": 1}}, "steps[0].fork: should be a list of lists"),
        ({"fork": [3]}, "steps[0].fork[0]: should be a list of steps, got 3"),
        ({"each": {"toy-prune": {"keep": 0.5}}}, "steps[0].each: lists no values to try"),
        ({"each": {"toy-prune": {"keep": []}}}, "steps[0].each: lists no values to try"),
        (
            {"each": {"toy-prune": {"keep": [0.5, 1.5]}}},
            "steps[0].each.toy-prune.keep[1]: should be in (0, 1], got 1.5",
        ),
        (
            {"each": {"toy-prun": {"keep": [0.5]}}},
            "steps[0].each: no step called 'toy-prun'; did you mean 'toy-prune'?",
        ),
        ({"use": 3}, "steps[0].use: should name a recipe file"),
        ({"use": "absent.yaml"}, "steps[0].use: no file 'absent.yaml'"),
    ],
)
def test_entries_that_are_no_steps(toys, step, message):
    reported = problems(step)
    assert len(reported) == 1
    assert reported[0].startswith(message)


def test_included_files_are_checked_and_cycles_found(toys, tmp_path):
    (tmp_path / "a.yaml").write_text("steps: [{toy-prune: {keep: 2}}, {use: b.yaml}]")
    (tmp_path / "b.yaml").write_text("steps: [{use: a.yaml}]")
    (tmp_path / "c.yaml").write_text("task: only")
    data = {
        "model": "bert",
        "task": "movie-reviews",
        "steps": [{"use": "a.yaml"}, {"use": "c.yaml"}, {"use": "d.yaml"}],
    }
    reported = [str(problem) for problem in check(data, tmp_path)]
    assert reported[0] == "steps[0].use(a.yaml)[0].toy-prune.keep: should be in (0, 1], got 2"
    assert "'a.yaml' includes itself: a.yaml -> b.yaml -> a.yaml" in reported[1]
    assert reported[2] == "steps[1].use: 'c.yaml' has no list of 'steps'"
    assert reported[3] == "steps[2].use: no file 'd.yaml'; did you mean 'c.yaml'?"


def test_values_made_in_python_are_checked_too(toys):
    recipe = Recipe("bert", "movie-reviews", (toys.ToyPrune(keep=7), Fork(((toys.ToyImitate(),),))))
    assert [problem.path for problem in check(recipe)] == ["steps[0].toy-prune.keep", "steps[1].fork[0][0] toy-imitate"]


def test_models_and_tasks_that_are_not_there(toys, tmp_path):
    (tmp_path / "model").mkdir()
    reported = [
        str(problem) for problem in check({"model": str(tmp_path / "modle"), "task": "movie-review", "steps": []})
    ]
    assert "no model folder" in reported[0]
    assert "did you mean" in reported[0]
    assert reported[1] == "task: there is no task and no folder 'movie-review'; did you mean 'movie-reviews'?"
    (tmp_path / "model" / "config.json").write_text('{"model_type": "deberta"}')
    reported = [
        str(problem) for problem in check({"model": str(tmp_path / "model"), "task": {"trian": "x"}, "steps": []})
    ]
    assert reported[0].startswith("model: ")
    assert "did you mean 'train'" in reported[1]
    (reported,) = check({"model": "bert", "task": {"train": "absent/train.csv"}, "steps": []})
    assert str(reported) == "task: absent/train.csv: there is no such file, nor a folder absent"


@pytest.mark.parametrize(("threshold", "refused"), [(0.9, True), (None, False)])
def test_only_early_exits_that_are_switched_on_bar_a_change_of_weights(make_model, tmp_path, threshold, refused):
    model = make_model(Shape.uniform(layers=3, hidden=8, heads=2, ffn=8))
    add_exits(model, EarlyExits((1,)))
    set_rule(model, EarlyExits((1,), "confidence", threshold))
    save_model(model, toy_tokenizer(toy_task()), tmp_path / "model")
    steps = [{"distill": {}}]
    found = check({"model": str(tmp_path / "model"), "teacher": "minilm-l6", "task": "movie-reviews", "steps": steps})
    assert any("early exits" in str(problem) for problem in found) is refused


def test_options_of_a_task_are_checked_without_reading_it():
    for task, message in (({"limit": {"trian": 5}}, "did you mean 'train'"), ({"metric": "acuracy"}, "'accuracy'")):
        (reported,) = check({"model": "bert", "task": {"path": "movie-reviews", **task}, "steps": []})
        assert (reported.path, message in reported.message) == ("task", True)


def test_what_comes_before_training(toys, monkeypatch):
    train, prune, export = toys.ToyTrain(), toys.ToyPrune(), toys.ToyExport()
    paths = [
        [located.path for located in before_training(locate(steps))]
        for steps in (
            (toys.ToyQuality(), train, prune),
            (prune, train),
            (Fork(((), (train,))), export),
            (Fork(((train,), (prune, train))), export),
        )
    ]
    assert paths == [[], ["steps[0]"], ["steps[1]"], ["steps[0].fork[1][0]"]]
    monkeypatch.setattr(type(prune), "info", replace(prune.info, headless=True))
    assert before_training(locate((prune, train))) == []  # it looks at no answers


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [")
    (reported,) = check(tmp_path / "bad.yaml")
    assert "line 1" in str(reported)


def test_checking_imports_no_torch():
    code = (
        "import sys; from limbeck.recipe.recipe import check; import limbeck.engine.run, limbeck.engine.dry_run;"
        "found = check({'model': 'bert', 'task': 'movie-reviews', 'steps': ['finetunes']});"
        "assert len(found) == 1, found; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"device": "nonsense"}, "target.device: no device 'nonsense'; choose from 'cpu'"),
        ({"device": "cuda:99"}, "target.device: torch finds no device 'cuda:99' here"),
        ({"device": "cpu"}, None),
    ],
)
def test_a_device_that_is_not_there_is_reported(toys, target, message):
    reported = problems("toy-train", "toy-export", target=target)
    assert [problem.startswith(message) for problem in reported] == [True] if message else not reported


def test_exported_models_need_a_part_of_their_runtime_for_the_device(toys, monkeypatch):
    monkeypatch.setattr("limbeck.measure.backends.check_device", lambda device: None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    (problem,) = problems("toy-train", "toy-export", target={"device": "cuda:0"})
    assert problem.startswith("target.runtime: toy-export: runtime onnxruntime on cuda:0 needs CUDAExecutionProvider")
    assert problem.endswith("pip install onnxruntime-gpu")
    (problem,) = problems("toy-train", "toy-export", target={"device": "mps"})
    assert "run on the processor or on CUDA, not in onnxruntime on mps" in problem
    assert not problems("toy-train", target={"device": "cuda:0"})
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert not problems("toy-train", "toy-export", target={"device": "cuda:0"})


def test_int8_is_refused_on_a_gpu(monkeypatch):
    monkeypatch.setattr("limbeck.measure.backends.check_device", lambda device: None)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    (problem,) = problems("finetune", "export", "quantize", target={"device": "cuda"})
    assert problem.startswith("steps[2].quantize: INT8 graphs are made for processors")
    assert problem.endswith("export with 'precision: float16'")
    gpus = {"large": {"device": "cuda"}, "small": {"device": "cuda:0"}}
    (problem,) = problems("finetune", "export", "quantize", targets=gpus)
    assert problem.startswith("steps[2].quantize: INT8 graphs are made for processors")
    assert not problems("finetune", "export", "quantize", targets={**gpus, "laptop": {}})  # left out on the others


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"device": "cuda", "runtime": "openvino"}, "runtime: openvino does not run on 'cuda'"),
        ({"runtime": "tensorrt"}, "runtime: tensorrt runs on a GPU, got device 'cpu'; use device 'cuda'"),
        ({"precision": "bfloat16"}, "precision: graphs are exported in float32 or float16"),
        ({"precision": "float16", "runtime": "openvino"}, "precision: openvino computes in float32"),
        ({"precision": "half"}, "target.precision"),
        ({"precision": "float16"}, "precision: is float32, and the target's is float16; give the same"),
    ],
)
def test_targets_that_cannot_be_are_refused(target, message):
    (problem,) = problems("finetune", "export", target=target)
    assert message in problem


def test_what_the_machine_lacks_is_reported_before_training(monkeypatch):
    def missing(*_):
        raise InputError("not here")

    monkeypatch.setattr("limbeck.measure.backends.check_runtime", missing)
    reported = problems({"finetune": {"mixed_precision": "fp16"}}, target={"runtime": "openvino"})
    assert reported[0] == "target.runtime: not here"
    if not torch.cuda.is_available():
        assert reported[1].startswith("steps[0].finetune.mixed_precision: 'fp16' is for training on a GPU")


def test_the_runtime_of_a_target_elsewhere_is_needed_where_this_machine_measures(monkeypatch):
    def missing(runtime):
        raise InputError("not here")

    monkeypatch.setattr("limbeck.measure.backends.check_runtime", missing)
    target = {"runtime": "openvino", "url": "http://board:8765"}
    assert not problems("finetune", "export", "latency", "throughput", "quality", target=target)
    assert problems("finetune", "export", "memory", target=target) == ["target.runtime: not here"]
    targets = {"board": target, "here": {"runtime": "openvino"}}
    assert problems("finetune", "export", "latency", targets=targets) == ["targets.here.runtime: not here"]


def test_lengths_are_checked_as_far_as_the_recipe_says_them(tmp_path, make_model):
    save_model(make_model(max_positions=64, vocab_size=60), toy_tokenizer(toy_task(train=9)), tmp_path)
    data = {"model": str(tmp_path), "task": {"path": "movie-reviews", "max_length": 100}, "steps": ["finetune"]}
    longer = {**data, "task": "movie-reviews", "target": {"seq_len": 65}}
    linear = {**longer, "steps": [{"fork": [[], []]}, {"linearize": {"max_length": 128}}], "teacher": "hub-name"}
    assert [problem.path for problem in check(data)] == ["task.max_length"]
    assert [problem.path for problem in check(longer)] == ["target.seq_len"]
    assert not check(linear)


SENSELESS = {
    "steps[0].augment.guard": ("regression", {"augment": {"guard": "drop"}}),
    "steps[0].augment.ngram": ("tokens", {"augment": {"method": "ngram", "ngram": "keep"}}),
    "steps[0].finetune.class_weights": ("regression", {"finetune": {"class_weights": "balanced"}}),
    "steps[0].distill.focal_gamma": ("regression", {"distill": {"focal_gamma": 2.0, "task_weight": 1.0}}),
    "steps[0].meta_pseudo_labels.pseudo_labels": (
        "regression",
        {"meta_pseudo_labels": {"preset": "paper", "feedback": "off"}},
    ),
    "steps[0].meta_pseudo_labels": ("embedding", "meta_pseudo_labels"),
    "steps[0].distill.temperature": ("multilabel", {"distill": {"temperature": 4.0}}),
    "steps[0].distill.logits_loss": ("embedding", {"distill": {"logits_loss": "soft_cross_entropy"}}),
    "steps[0].supernet.temperature": ("rerank", {"supernet": {"temperature": 1.0}}),
    "steps[0].linearize.temperature": ("regression", {"linearize": {"alpha_output": 1.0, "temperature": 1.0}}),
}


@pytest.mark.parametrize("path", SENSELESS)
def test_what_makes_no_sense_for_a_kind_of_task_names_the_field(path):
    import limbeck.techniques  # noqa: F401 registers the steps

    kind, step = SENSELESS[path]
    placed = locate(parse({"model": "m", "task": "t", "steps": [step]}).steps)
    assert [problem.path for problem in unsuited_fields(placed, toy_task(kind, train=8))] == [path]
    assert not unsuited_fields(placed, toy_task("classification", train=8))


def test_numbers_cannot_be_flipped():
    limits = {"budget": Budget(max_flips=2.0)}
    ((path, words),) = [(p.path, p.message) for p in unsuited_limits(limits, KINDS["regression"])]
    assert path == "budget.max_flips"
    assert "give max_drop" in words
    assert not unsuited_limits(limits, KINDS["tokens"])
    assert not unsuited_limits({"budget": Budget(max_drop=2.0)}, KINDS["regression"])


@pytest.mark.parametrize("limit", ["max_drop", "max_flips"])
def test_a_limit_without_a_model_to_compare_with_is_refused(limit):
    def problems(*steps, **more):
        data = {"model": "hub", "task": "movie-reviews", "steps": list(steps), "budget": {limit: 2.0}, **more}
        return [problem for problem in check(data) if problem.path.startswith("budget")]

    (problem,) = problems("export", "quality", "best")
    assert problem.path == f"budget.{limit}"
    assert "no model to compare with; put 'finetune'" in problem.message
    assert problems("export", "quality", teacher="hub/large") == []
    assert problems({"fork": [["finetune"], []]}, "quality") == []
    assert problems("finetune", "quality") == []


def test_requests_are_for_documents_that_are_ranked():
    target = Target(candidates=50)
    (problem,) = unsuited_limits({"target": target}, KINDS["regression"])
    assert problem.path == "target.candidates"
    assert not unsuited_limits({"target": target}, KINDS["rerank"])
    assert not unsuited_limits({"target": Target()}, KINDS["regression"])


def test_a_goal_in_latency_elsewhere_needs_latencies_of_that_machine():
    target = {"url": "http://board:8765"}
    finetune, search = {"finetune": {"epochs": 1}}, {"search": {"latency_ms": 1.0}}
    needed = "profile: is needed, since the target is at http://board:8765; run 'limbeck profile --full"
    (reported,) = problems(finetune, {"prune": {"speedup": 2}}, target=target)
    assert reported.startswith(f"steps[1].prune.{needed}")
    (reported,) = problems(finetune, {"supernet": {"epochs": 1}}, search, target=target)
    assert reported.startswith(f"steps[2].search.{needed}")
    assert not problems(finetune, {"prune": {"keep": 0.5, "cost": "macs"}}, "latency", target=target)
    assert not problems(finetune, {"prune": {"heads": 2}}, "latency", target=target)
    assert not problems(finetune, {"prune": {"size_mb": 5}}, "latency", target=target)
    (reported,) = problems(finetune, target={"url": "board"})
    assert reported == "target: url: should be http://HOST:PORT, https://HOST:PORT or ray:RESOURCE, got 'board'"


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"distill": {"task_weight": 0.5}}, "steps[0].distill.task_weight"),
        ({"supernet": {"task_weight": 0.5}}, "steps[0].supernet.task_weight"),
        ({"linearize": {}}, "steps[0].linearize"),
        ({"weight_sharing": {"layers": [1, 2]}}, "steps[0].weight_sharing"),
        ({"finetune": {}}, "steps[0].finetune.pair_loss"),
        ({"finetune": {"pair_loss": "cosine"}}, "steps[0].finetune.pair_loss"),
        ({"finetune": {"pair_loss": "contrastive"}}, None),
        ({"distill": {}}, None),
        ({"supernet": {}}, None),
    ],
)
def test_pairs_with_one_score_teach_no_order(step, path):
    placed = locate(parse({"model": "m", "task": "t", "steps": [step]}).steps)
    alike = toy_task("embedding", train=8)
    same = replace(alike.split("train"), labels=(1.0,) * 8)
    problems = unsuited_fields(placed, replace(alike, splits={**alike.splits, "train": same}))
    assert [problem.path for problem in problems] == ([] if path is None else [path])
    if path is not None:
        assert "all have 1; use finetune: {pair_loss: contrastive}" in str(problems[0]) or "pair_loss" in path
    assert not unsuited_fields(placed, alike)


@pytest.mark.parametrize("name", ["distill", "pretrain_distill"])
def test_tokens_are_ranked_after_layers_leave_some_behind(name):
    tokens, ranking = {"prune_tokens": {"keep": 0.5}}, {name: {"match": ["token_ranking"]}}
    assert problems({"finetune": {}}, tokens, ranking) == []
    reported = problems({"finetune": {}}, {"prune": {"heads": 2}}, ranking, tokens)
    message = "match: token_ranking is for students whose layers pass on fewer tokens than they read"
    assert reported == [f"steps[2].{name}: {message}; put prune_tokens before it"]
