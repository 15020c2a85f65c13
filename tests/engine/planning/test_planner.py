"""Which recipe a budget, a model and a task lead to."""

from __future__ import annotations

import json
import math
import re
import shutil

import pytest
from planned import TASK

from limbeck.core.decision import DecisionGoal
from limbeck.core.shape import LayerShape, Shape
from limbeck.core.target import Budget, Target
from limbeck.data.loading import load_task
from limbeck.data.synthetic import toy_tokenizer
from limbeck.engine.dry_run import plan
from limbeck.engine.planning.compress_request import CompressRequest
from limbeck.engine.planning.planner import BOUNDS, GOALS, SEARCHES, SPEEDUPS, Planner
from limbeck.errors import InputError
from limbeck.measure.latency import Latency
from limbeck.model.checkpoints import save_model
from limbeck.recipe.recipe import check, parse, to_data


def problems(recipe):
    """List the problems of a recipe, apart from OpenVINO not being installed here."""
    return [problem for problem in check(recipe) if problem.path != "target.runtime"]


def planned(workspace, model="other", task="task", budget=None, linear=None, target=Target(threads=2), **more):  # noqa: B008
    request = CompressRequest(budget or Budget(latency_ms=2.0), **more)
    spec = task if isinstance(task, dict) else str(workspace / task)
    recipe = Planner(str(workspace / model), load_task(spec), request).recipe(spec, target, linear)
    assert not problems(recipe)
    assert parse(to_data(recipe)) == recipe
    return recipe


def stages(count):
    """Names of the steps of a family, each made of the one before."""
    steps = ["prune", "distill"]
    return steps if count == 1 else [*steps, [[], stages(count - 1)]]


def family(branch, field):
    """What a family is pruned to, stage by stage."""
    prune, _, *rest = branch
    more = rest[0].branches[1] if rest and hasattr(rest[0], "branches") else ()
    return [getattr(prune.pruning, field), *(family(more, field) if more else ())]


def names(steps):
    """Names of steps; of a fork, those of its branches; 'quantize' once, also where several ways are tried."""
    step_names = [
        step.info.name if hasattr(step, "info") else [names(branch) for branch in step.branches] for step in steps
    ]
    return ["quantize" if name in [[["quantize"]] * count for count in (2, 4)] else name for name in step_names]


def ways(branch):
    """What INT8 is tried with at the end of a branch: ranges, and whether its inputs are evened out."""
    last = branch[-1]
    steps = [last] if hasattr(last, "info") else [step for (step,) in last.branches]
    return [(step.mode, step.smooth) for step in steps]


MEAN = Budget(latency_ms=2.0, latency_statistic="mean")


@pytest.mark.parametrize(
    ("options", "tried"),
    [
        ({"effort": "standard"}, False),
        ({"effort": "thorough"}, True),
        ({"effort": "thorough", "max_minutes": 5.0}, False),
        ({"effort": "thorough", "target": Target(threads=2, seq_len=32)}, False),
        ({"effort": "thorough", "target": Target(runtime="openvino")}, False),
        ({"effort": "quick", "budget": MEAN}, True),
        ({"effort": "one-shot", "budget": MEAN, "max_minutes": 5.0}, True),
    ],
)
def test_cascades_are_tried_with_much_effort_or_where_the_mean_counts(workspace, options, tried):
    """After the probes by which pairs are chosen, and before those that measure them."""
    after = names(planned(workspace, **options).steps)[2:]
    probes = after[: after.index("latency") + 1]
    assert ("cascade" in after) == tried
    assert after[: 2 * len(probes) + 1] == [*probes, "cascade", *probes] if tried else after.count("latency") == 1


def test_of_long_texts_fewer_tokens_are_read(workspace, make_model, monkeypatch):
    """But for short texts, few layers, and where nothing is known of such graphs."""
    deep = make_model(Shape.uniform(layers=4, hidden=32, heads=4, ffn=64), labels=3, vocab_size=60, max_positions=128)
    save_model(deep, toy_tokenizer(TASK), workspace / "deep")
    fork = names(planned(workspace, "deep", effort="quick").steps)[1]
    monkeypatch.setattr("limbeck.engine.planning.planner.LONG", 2)
    assert names(planned(workspace, "deep", effort="quick").steps)[1] == [
        *fork,
        ["prune_tokens", "distill", "export", "quantize"],
        ["prune_tokens", "prune", "distill", "export", "quantize"],
    ]
    assert ["prune_tokens", "export", "quantize"] in names(planned(workspace, "deep", effort="one-shot").steps)[1]
    for options in ({"target": Target(runtime="openvino")}, {"strategy": "search"}, {"model": "other"}):
        recipe = planned(workspace, **{"model": "deep", "effort": "quick", **options})
        assert "prune_tokens" not in str(names(recipe.steps))


def test_more_texts_are_timed_where_the_slowest_decide(workspace):
    for statistic, samples in (("p50", 40), ("mean", 40), ("p99", 200)):
        budget = Budget(latency_ms=2.0, latency_statistic=statistic)
        (latency,) = {step for step in planned(workspace, budget=budget).steps if isinstance(step, Latency)}
        assert latency.sample.samples == samples
    for target, samples in ((Target(batch=8), 800), (Target(candidates=50), 5000), (Target(batch=4096), 100_000)):
        latency = Latency.for_p99("test", target)
        assert (latency.sample.samples, latency.sample.rounds, latency.sample.split) == (samples, 5, "test")


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_effort_decides_how_many_candidates(workspace, effort):
    recipe = planned(workspace, effort=effort)
    first, fork, *rest = names(recipe.steps)
    assert first == "finetune"
    assert fork[:3] == [[], ["export"], ["export", "quantize"]]
    assert fork[3:] == [[*stages(len(GOALS[effort])), "export", "quantize"]]
    probes = ["size", "quality", "quality", "latency"]
    assert rest == [*probes, *(["cascade", *probes] if effort == "thorough" else []), "best", "portability"]
    assert family(recipe.steps[1].branches[3], "latency_ms") == [2 * part for part in GOALS[effort]]
    without = planned(workspace, effort=effort, budget=Budget())
    assert family(without.steps[1].branches[3], "speedup") == list(SPEEDUPS[effort])
    assert set(family(without.steps[1].branches[3], "relative_to")) == {"teacher"}
    assert names(without.steps)[-2:] == ["cheapest", "portability"]


def test_int8_that_openvino_cannot_read_is_told_before_training(workspace):
    options = {"model": str(workspace / "ready"), "task": str(workspace / "task"), "target": {"runtime": "openvino"}}
    (problem,) = problems({**options, "steps": [{"export": {}}, {"quantize": {"mode": "static"}}]})
    assert str(problem).startswith("steps[0].export.fused: holds operators of ONNX Runtime alone once it is quantized")
    assert not problems({**options, "steps": [{"export": {}}]})
    assert not problems({**options, "steps": [{"export": {"fused": False}}, {"quantize": {"mode": "static"}}]})


@pytest.mark.parametrize("effort", ["one-shot", "quick", "standard", "thorough"])
def test_more_effort_tries_more_ways_to_quantize(workspace, effort):
    modes = ["dynamic", *(["static"] if effort in ("standard", "thorough") else [])]
    tried = [(mode, smooth) for mode in modes for smooth in ([False, True] if effort == "thorough" else [False])]
    for branch in planned(workspace, effort=effort).steps[1].branches[2:]:
        assert ways(branch) == tried


def test_openvino_gets_standard_operators_and_static_ranges(workspace):
    recipe = planned(workspace, budget=Budget(max_drop=1.0), target=Target(runtime="openvino"))
    _, exported, *int8 = recipe.steps[1].branches
    assert {exported[-1].fused, *(branch[-2].fused for branch in int8)} == {False}
    assert {mode for branch in int8 for mode in ways(branch)} == {("static", False)}


@pytest.mark.parametrize("runtime", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_gpu_gets_exports_in_its_precision_and_no_int8(workspace, monkeypatch, precision, runtime):
    monkeypatch.setattr("limbeck.measure.backends.check_device", lambda device: None)
    target = Target(device="cuda", runtime=runtime, precision=precision)
    for options in ({"effort": "quick"}, {"effort": "standard", "strategy": "both"}, {"effort": "one-shot"}):
        recipe = planned(workspace, target=target, **options)
        text = str(to_data(recipe))
        assert "quantize" not in text
        assert "portability" not in text
        torch, whole, *others = recipe.steps[1].branches
        assert (torch, whole[0].precision) == ((), "float32")
        exports = [branch[-1] for branch in others]
        assert {(step.precision, step.fused) for step in exports} == {(precision, runtime == "onnxruntime")}
        assert (len(others[0]) == 1) == (precision == "float16")
        assert "'number_format': 'int8'" not in text
    sized = planned(workspace, target=target, effort="quick", budget=Budget(size_mb=1.0))
    assert "quantize" not in str(to_data(sized))


def test_a_bound_of_size_is_tried_with_fewer_tokens_too(workspace):
    for budget in (Budget(size_mb=1.0), Budget(size_mb=1.0, latency_ms=2.0)):
        first, *others, last = planned(workspace, effort="quick", budget=budget).steps[1].branches[3:]
        assert [step.info.name for step in last] == ["vocabulary", "prune", "distill", "export", "quantize"]
        assert last[1] == (first[0] if budget.latency_ms else others[0][0])
        assert last[1].pruning.size_mb == (None if budget.latency_ms else 0.98)


def test_in_one_shot_nothing_is_trained_but_the_model_itself(workspace):
    expected = [["prune", "export", "quantize"]]
    recipe = planned(workspace, effort="one-shot", budget=Budget())
    whole = [[], ["export"], ["export", "quantize"]]
    assert names(recipe.steps)[:2] == ["finetune", whole + expected * len(SPEEDUPS["one-shot"])]
    assert {branch[0].criterion for branch in recipe.steps[1].branches[3:]} == {"obs"}
    assert names(planned(workspace, "ready", effort="one-shot").steps)[0] == whole + expected * len(GOALS["one-shot"])
    with pytest.raises(InputError, match="strategy: effort 'one-shot' trains no super-network"):
        planned(workspace, effort="one-shot", strategy="both")


def test_goals_that_the_whole_model_meets_are_not_planned(workspace):
    request = CompressRequest(Budget(latency_ms=2.0, size_mb=1.0), effort="one-shot")
    planner = Planner(str(workspace / "ready"), load_task(workspace / "task"), request)
    assert planner.needs_whole
    planned_goals = {}
    for whole in (None, 5.0, 1.5, 1.0, 0.1):
        recipe = planner.recipe(str(workspace / "task"), Target(), whole_ms=whole)
        *goals, last = recipe.steps[0].branches[3:]
        planned_goals[whole] = [branch[0].pruning.latency_ms for branch in goals]
        assert not problems(recipe)
        assert names(last)[0] == "vocabulary"  # fewer words make a smaller file, whatever the latency
        assert [step.pruning.latency_ms for step in last[1:-2]] == planned_goals[whole][:1]
    assert planned_goals == {None: [1.9, 1.6, 1.3, 1.0], 5.0: [1.9, 1.6, 1.3, 1.0], 1.5: [1.3, 1.0], 1.0: [], 0.1: []}
    for more in ({"effort": "quick"}, {"effort": "one-shot", "budget": Budget()}):
        other = CompressRequest(**{"budget": Budget(latency_ms=2.0), **more})
        assert not Planner(str(workspace / "ready"), load_task(workspace / "task"), other).needs_whole


def test_half_of_the_layers_may_reach_what_all_cannot(workspace, make_model):
    deep = make_model(Shape.uniform(layers=5, hidden=32, heads=4, ffn=64), labels=3, max_positions=128)
    save_model(deep, toy_tokenizer(TASK), workspace / "deep")
    whole, half = planned(workspace, "deep").steps[1].branches[3:]
    assert family(whole, "latency_ms") == [1.84, 1.4]
    assert family(whole, "layers") == [None, None]
    assert (half[0].pruning.latency_ms, half[0].pruning.layers) == (1.84, 2)
    assert len(planned(workspace, "deep", budget=Budget()).steps[1].branches) == 4


def test_a_linear_core_is_a_branch_where_it_is_faster(workspace):
    recipe = planned(workspace, linear="linformer:128")
    branch = names(recipe.steps)[1][-1]
    assert branch == ["linearize", [[], ["prune", "distill"]], "export", "quantize"]
    assert recipe.steps[1].branches[-1][0].attention == ("linformer:128",)
    assert recipe.steps[1].branches[:-1] == planned(workspace).steps[1].branches


def searched(count):
    return ["supernet", [["search"]] * count, "distill", "export", "quantize"]


@pytest.mark.parametrize("effort", ["quick", "standard", "thorough"])
def test_strategy_decides_how_smaller_models_are_found(workspace, effort):
    whole = [[], ["export"], ["export", "quantize"]]
    forks = {
        strategy: planned(workspace, strategy=strategy, effort=effort).steps[1]
        for strategy in ("prune", "search", "both")
    }
    assert names([forks["prune"]])[0] == [*whole, [*stages(len(GOALS[effort])), "export", "quantize"]]
    assert names([forks["search"]])[0] == [*whole, searched(len(BOUNDS[effort]))]
    assert forks["both"].branches == (*forks["prune"].branches, forks["search"].branches[3])
    assert planned(workspace, effort=effort).steps[1] == forks["prune"]
    network, fork, *_ = forks["search"].branches[3]
    slices = network.slices
    assert (slices.layers, slices.heads, slices.ffn, slices.hidden) == ((1, 2), (1, 4), (32, 64), None)
    assert slices.per_layer
    steps = [branch[0] for branch in fork.branches]
    assert [step.bound.latency_ms for step in steps] == [2 * part for part in BOUNDS[effort]]
    assert {(step.population, step.bound.number_format) for step in steps} == {(SEARCHES[effort].population, "int8")}
    without = planned(workspace, effort=effort, strategy="search", budget=Budget(size_mb=1.0))
    assert [branch[0].bound.speedup for branch in without.steps[1].branches[3][1].branches] == list(SPEEDUPS[effort])
    assert names(without.steps)[-2:] == ["best", "portability"]


def test_more_effort_searches_longer(workspace):
    plans = [
        plan(planned(workspace, strategy="search", effort=effort), workspace / "no-store")
        for effort in ("quick", "thorough")
    ]
    rows = [{row.path: row for row in each.rows} for each in plans]
    first = [each["steps[1].fork[3][1].fork[0][0]"].seconds for each in rows]
    assert 0 < first[0] < first[1]
    assert [each["steps[1].fork[3][2]"].candidates for each in rows] == [1, 2 * len(BOUNDS["thorough"])]
    assert plans[0].seconds < plans[1].seconds


def test_a_search_begins_with_layers_that_are_alike(workspace, make_model):
    ragged = make_model(Shape(32, 8, (LayerShape(4, 64), LayerShape(2, 16))), labels=3, max_positions=128)
    save_model(ragged, toy_tokenizer(TASK), workspace / "ragged")
    for strategy in ("search", "both"):
        with pytest.raises(InputError, match=r"layers are alike, but .*ragged' is 2x32 heads 4,2 .* use 'prune'"):
            planned(workspace, "ragged", strategy=strategy)
    assert planned(workspace, "ragged")
    bare = make_model(Shape.uniform(2, 32, 4, 0), labels=3, max_positions=128)
    save_model(bare, toy_tokenizer(TASK), workspace / "bare")
    with pytest.raises(InputError, match="which leaves nothing to search"):
        planned(workspace, "bare", strategy="search")
    with pytest.raises(InputError, match=r"strategy: there is no 'serach'; did you mean 'search'\?"):
        planned(workspace, strategy="serach")
    with pytest.raises(InputError, match=r"effort: there is no 'fast'; choose from 'one-shot', 'quick', "):
        planned(workspace, effort="fast")


def test_a_model_that_answers_the_task_is_taken_as_it_is(workspace):
    recipe = planned(workspace, "ready")
    assert recipe.teacher == recipe.model
    assert "finetune" not in names(recipe.steps)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        ({}, True),
        ({"id2label": {0: "ANGRY", 1: "sad", 2: "happy"}}, True),
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}}, False),
        ({"id2label": {0: "sad", 1: "happy"}}, False),
        ({"id2label": {0: "b", 1: "c", 2: "d"}}, False),
        ({"architectures": ["LimbeckForTokenClassification"]}, False),
        ({"problem_type": "multi_label_classification"}, False),
    ],
)
def test_the_configuration_says_whether_a_model_answers_the_task(workspace, tmp_path, config, fits):
    shutil.copytree(workspace / "ready", tmp_path / "model")
    written = json.loads((workspace / "ready" / "config.json").read_text()) | config
    if "id2label" in config:
        written.pop("label2id")
    (tmp_path / "model" / "config.json").write_text(json.dumps(written))
    recipe = planned(workspace, str(tmp_path / "model"))
    assert (recipe.teacher is not None) is fits
    assert (names(recipe.steps)[0] != "finetune") is fits


def test_an_encoder_that_makes_no_vectors_yet_is_fine_tuned_first(workspace, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("text,pair,label\nsad,unhappy,5\nsad,cheerful,0\n")
    recipe = planned(workspace, "other", {"path": str(tmp_path), "kind": "embedding"})
    assert recipe.teacher is None
    assert names(recipe.steps)[0] == "finetune"


def test_half_of_the_drop_is_left_to_int8(workspace):
    recipe = planned(workspace, budget=Budget(latency_ms=1.0, max_drop=1.0))
    tried = [step for (step,) in recipe.steps[1].branches[2][1].branches]
    assert [(step.info.name, step.max_drop) for step in tried] == [("quantize", 0.5)] * 2


def test_without_a_test_split_all_is_measured_on_validation(workspace):
    *_, size, quality, latency, best, portability = planned(workspace, task="no-test").steps
    assert {*(step.split for step in (size, portability, quality)), latency.sample.split} == {"validation"}
    assert best.info.name == "best"


def test_an_exported_model_is_refused(workspace, tmp_path):
    config = json.loads((workspace / "ready" / "config.json").read_text()) | {"limbeck_runtime": "onnxruntime"}
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="exported model, which cannot be trained"):
        Planner(str(tmp_path / "exported"), TASK, CompressRequest())


def test_a_given_teacher_teaches_the_model_and_every_smaller_one(workspace):
    """By its answers alone, and speed-ups are those over the model, whose stages multiply."""
    recipe = planned(workspace, budget=Budget(max_drop=1), teacher="owner/large")
    assert recipe.teacher == "owner/large"
    finetune, distill, fork, *_ = recipe.steps
    assert [step.info.name for step in (finetune, distill)] == ["finetune", "distill"]
    assert distill.match == ("logits",)
    ratios = family(fork.branches[3], "bound")
    assert math.prod(bound.speedup for bound in ratios) == pytest.approx(SPEEDUPS["standard"][-1], rel=1e-3)
    assert planned(workspace, "ready", teacher="owner/large").steps[0] == distill


def test_thresholds_are_fitted_for_the_chosen_model(workspace):
    recipe = planned(workspace, decision=DecisionGoal("same-recall", TASK.label_names[0], temperature=True))
    assert names(recipe.steps)[-3:] == ["best", "decision", "portability"]
    assert (recipe.steps[-2].split, recipe.steps[-2].goal.threshold) == ("test", "same-recall")
    assert planned(workspace, task="no-test", decision=DecisionGoal(temperature=True)).steps[-2].split == "validation"


def test_with_a_limit_of_time_what_needs_no_training_comes_first(workspace):
    unlimited, limited = (planned(workspace, budget=Budget(max_drop=1), max_minutes=limit) for limit in (None, 5.0))
    served = ["export", "quantize"]
    first = [["prune", *served]] * len(SPEEDUPS["standard"])
    chain = ["prune", "distill", [served, ["prune", "distill", [served, ["prune", "distill", *served]]]]]
    assert limited.max_minutes == 5.0
    assert names(limited.steps)[1] == [[], ["export"], served, *first, chain]
    one_shot, staged = limited.steps[1].branches[3:-1], limited.steps[1].branches[-1]
    assert [prune.pruning.speedup for prune, *_ in one_shot] == family(staged, "speedup") == list(SPEEDUPS["standard"])
    assert one_shot[0][0] == staged[0]  # made once
    assert names(unlimited.steps)[1] == [[], ["export"], served, [*stages(3), *served]]


def test_another_machine_is_planned_for_by_its_latency_data(workspace, tmp_path):
    """Every goal in latency has the file, whatever the strategy, and goals in size have none."""
    target = Target(url="http://board:8765")
    more = {"strategy": "both", "profile": "machine.jsonl"}
    for budget in (Budget(latency_ms=2.0), Budget(size_mb=5.0), Budget()):
        request = CompressRequest(budget, **more)
        recipe = Planner(str(workspace / "other"), load_task(workspace / "task"), request).recipe(
            str(workspace / "task"), target
        )
        missing = [problem for problem in check(recipe) if "is needed" in problem.message]
        assert not missing
        goals = re.findall(r"Prune\(.*?\)|Search\(.*?\)", str(to_data(recipe)))
        assert not goals or all("machine.jsonl" in goal for goal in goals)
    without = Planner(str(workspace / "other"), load_task(workspace / "task"), CompressRequest(Budget(latency_ms=2.0)))
    assert [
        problem for problem in check(without.recipe(str(workspace / "task"), target)) if "is needed" in problem.message
    ]
