import copy
import sys
from dataclasses import replace

import pytest
import torch
from format_cost import FormatCost

from limbeck.core.analytic_cost import macs
from limbeck.core.candidate import Candidate, Record
from limbeck.core.cost import TABLE_SECONDS
from limbeck.core.field_groups import changed
from limbeck.core.measurement import Measurement
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext, Teacher
from limbeck.core.step_keys import identity
from limbeck.core.target import Target
from limbeck.cost_models.latency_dataset import Dataset, Group, TimedShape, write
from limbeck.cost_models.latency_predictor import Predictor
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.measure.samples import typical_length
from limbeck.model.encoder import Style
from limbeck.model.pruning import optimal_brain_surgeon as surgeon
from limbeck.techniques.finetune import Finetune
from limbeck.techniques.prune import Prune
from limbeck.techniques.supernet import Supernet

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SMALL = {"samples": 32, "ffn_multiple": 8}


@pytest.fixture
def candidate(make_model):
    task = toy_task("classification", train=48, validation=16, test=16)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def table(shape, number_format="int8"):
    """A made-up latency: 1 ms, 0.1 ms a head, 0.01 ms a neuron."""
    parts = sum(layer.heads * 1e-4 + layer.ffn * 1e-5 for layer in shape.layers)
    return Measurement("latency_p50", 1e-3 + parts, "s")


def pruned(candidate, **fields):
    (child,) = Prune.of(**{**SMALL, **fields}).apply(candidate, RunContext(cost=FormatCost(table)))
    return child.model


@pytest.mark.parametrize("speedup", [1.2, 2.0, 3.5])
def test_the_goal_of_speed_is_met_and_not_overshot(candidate, speedup):
    goal = table(FULL).value / speedup
    latency = table(pruned(candidate, speedup=speedup).shape).value
    assert 0.93 * goal < latency <= goal * (1 + 1e-9)


def test_stages_count_from_the_teacher(candidate):
    """Twice as fast as the teacher, from what is half as slow already, changes nothing; three times goes on from it."""
    teacher = Teacher("t", lambda: None, Record("t", None, "finetune", {}, FULL, frozenset()))
    context = RunContext(cost=FormatCost(table), teacher=teacher)
    (first,) = Prune.of(**SMALL, speedup=2.0, relative_to="teacher").apply(candidate, context)
    shape = first.model.shape
    (again,) = Prune.of(**SMALL, speedup=2.0, relative_to="teacher").apply(first, context)
    assert again.model.shape == shape
    (second,) = Prune.of(**SMALL, speedup=3.0, relative_to="teacher").apply(again, context)
    assert second.model.shape <= shape
    assert 0.9 * table(FULL).value / 3 < table(second.model.shape).value <= table(FULL).value / 3
    with pytest.raises(InputError, match="there is no teacher"):
        next(
            iter(
                Prune.of(**SMALL, speedup=2.0, relative_to="teacher").apply(second, RunContext(cost=FormatCost(table)))
            )
        )


@pytest.mark.parametrize("criterion", ["fisher", "obs"])
def test_a_head_stays_where_the_answer_is_read(candidate, criterion):
    """Else the first token would know nothing of the others, and the model the same answer to all texts."""
    least = pruned(candidate, latency_ms=1.1, criterion=criterion)
    assert str(least.shape) == "3x32 heads 0,0,1 of 8 ffn 0"


def test_what_goes_together_is_judged_together(candidate):
    """Heads and neurons by their second-order cost, which no label decides."""
    model = pruned(candidate, speedup=2.0, criterion="obs")
    assert 0.93 * table(FULL).value / 2 < table(model.shape).value <= table(FULL).value / 2


def test_second_order_pruning_reads_no_labels(make_model, candidate):
    task = candidate.task
    turned = replace(task.split("train"), labels=tuple(reversed(task.split("train").labels)))
    other = replace(
        candidate, model=copy.deepcopy(candidate.model), task=replace(task, splits={**task.splits, "train": turned})
    )
    labeled, unlabeled = (pruned(each, speedup=2.0, criterion="obs") for each in (candidate, other))
    assert labeled.shape == unlabeled.shape
    for (name, parameter), reference in zip(labeled.named_parameters(), unlabeled.parameters(), strict=True):
        assert torch.equal(parameter, reference), name


def test_latency_goal_in_milliseconds(candidate):
    assert table(pruned(candidate, latency_ms=2.0).shape).value <= 2e-3


def test_macs_goal(candidate):
    model = pruned(candidate, keep=0.5, cost="macs")
    style, tokens = candidate.model.encoder.style, typical_length(candidate)
    remaining, full = (macs(shape, tokens, style, labels=3) for shape in (model.shape, FULL))
    assert 0.9 * 0.5 * full < remaining <= 0.5 * full


@pytest.mark.parametrize(("number_format", "bytes_a_weight"), [("float", 4), ("int8", 1)])
def test_size_goal(candidate, number_format, bytes_a_weight):
    before = sum(p.numel() for p in candidate.model.parameters()) * bytes_a_weight
    model = pruned(candidate, size_mb=before * 0.7 / 1e6, number_format=number_format)
    assert sum(p.numel() for p in model.parameters()) * bytes_a_weight <= 0.7 * before


def test_equal_numbers_in_every_layer(candidate):
    model = pruned(candidate, heads=2, ffn=24, criterion="taylor")
    assert model.shape == Shape.uniform(layers=3, hidden=32, heads=2, ffn=24, head_dim=8)


def test_whole_layers(candidate):
    last = candidate.model.encoder.layers[2].query.weight.clone()
    model = pruned(candidate, layers=1, reconstruct=False)
    assert model.shape.depth == 1
    assert torch.equal(model.encoder.layers[0].query.weight, last)


def test_the_layers_that_matter_most_stay(candidate):
    with torch.no_grad():  # a layer that writes nothing can go
        for name in ("attention_out", "down"):
            part = getattr(candidate.model.encoder.layers[1], name)
            part.weight.mul_(1e-3)
            part.bias.mul_(1e-3)
    expected = [candidate.model.encoder.layers[index].query.weight.clone() for index in (0, 2)]
    model = pruned(candidate, layers=2, layer_choice="importance", reconstruct=False)
    for layer, before in zip(model.encoder.layers, expected, strict=True):
        assert torch.equal(layer.query.weight, before)


def test_layers_first_then_the_rest_of_the_goal(candidate):
    model = pruned(candidate, layers=2, speedup=3.0)
    assert model.shape.depth == 2
    assert table(model.shape).value <= table(FULL).value / 3


def test_repair_is_nearer_to_the_full_model(candidate, make_batch, make_model):
    from limbeck.data.batching import encode, predict

    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    full = predict(candidate.model, encoded)
    errors = {}
    for reconstruct in (True, False):
        vocabulary = len(candidate.tokenizer)
        twin = replace(candidate, model=make_model(FULL, labels=3, vocab_size=vocabulary))
        model = pruned(twin, heads=2, ffn=32, reconstruct=reconstruct, samples=48)
        errors[reconstruct] = float(((predict(model, encoded) - full) ** 2).mean())
    assert errors[True] < errors[False]


def wide_table(shape, number_format="int8"):
    """A made-up latency that falls with the hidden width, too."""
    return replace(table(shape), value=table(shape).value * shape.hidden / 32)


def test_the_hidden_width_first_then_the_rest_of_the_goal(candidate):
    (narrowed,) = Prune.of(**SMALL, speedup=2.0, hidden=24).apply(candidate, RunContext(cost=FormatCost(wide_table)))
    goal = wide_table(FULL).value / 2
    assert narrowed.model.shape.hidden == 24
    assert narrowed.model.shape <= FULL
    assert 0.9 * goal < wide_table(narrowed.model.shape).value <= goal


def test_stages_at_a_hidden_width_count_from_the_teacher(candidate):
    teacher = Teacher("t", lambda: None, Record("t", None, "finetune", {}, FULL, frozenset()), ancestor=True)
    context = RunContext(cost=FormatCost(wide_table), teacher=teacher)
    for speedup in (2.0, 3.0):
        step = Prune.of(**SMALL, speedup=speedup, relative_to="teacher", hidden=24)
        assert step.out_of_reach(candidate, context) is None
        (candidate,) = step.apply(candidate, context)
        assert candidate.model.shape.hidden == 24
        goal = wide_table(FULL).value / speedup
        assert 0.85 * goal < wide_table(candidate.model.shape).value <= goal
    other = RunContext(cost=FormatCost(wide_table), teacher=replace(teacher, ancestor=False))
    assert "the teacher is another model" in step.out_of_reach(candidate, other)
    with pytest.raises(InputError, match="the teacher is another model"):
        list(step.apply(candidate, other))


def test_the_hidden_width_alone(candidate):
    step = Prune.of(hidden=20, samples=16)
    assert step.shape_after(FULL) == replace(FULL, hidden=20)
    (narrowed,) = step.apply(candidate, RunContext())
    assert narrowed.model.shape == replace(FULL, hidden=20)
    (again,) = step.apply(narrowed, RunContext())
    assert again.model is narrowed.model


@pytest.fixture
def stored():
    """Folders that steps have filled and kept, by name."""
    return {}


@pytest.fixture
def keep(stored, tmp_path):
    """Fill a folder once and keep it, as a run does."""

    def fill_once(name, fill):
        if name not in stored:
            stored[name] = tmp_path / str(len(stored))
            stored[name].mkdir()
            fill(stored[name])
        return stored[name]

    return fill_once


def test_orders_are_those_of_the_narrower_model(candidate, keep, stored):
    """Kept by its weights, not by those of the model that came in."""
    for hidden in ({}, {"hidden": 24}, {"hidden": 20}, {"hidden": 24}):
        copied = replace(candidate, model=copy.deepcopy(candidate.model))
        list(Prune.of(**SMALL, heads=2, **hidden).apply(copied, RunContext(keep=keep)))
    assert len(stored) == 3


def test_a_super_network_keeps_its_width_and_says_so_before_any_work(candidate):
    context, step = RunContext(), Prune.of(hidden=24)
    message = step.out_of_reach(candidate, context, (Supernet(),))
    assert "the model is a super-network, whose slices would all change" in message
    assert step.out_of_reach(candidate, context, (Finetune(),)) is None


def scheduled_table(shape, number_format="int8"):
    """A made-up latency by the tokens that layers read, and the hidden width; choosing tokens takes 0.01 ms."""
    rows = zip(shape.layers, shape.token_shares, strict=True)
    parts = sum(read * (layer.heads * 1e-4 + layer.ffn * 1e-5) + 1e-5 * (left < read) for layer, (read, left) in rows)
    return Measurement("latency_p50", (1e-3 + parts) * shape.hidden / 32, "s")


@pytest.mark.parametrize("fields", [{"hidden": "auto"}, {"tokens": "auto"}])
def test_the_step_chooses_and_says_what_it_tried(candidate, keep, stored, fields):
    messages, before = [], copy.deepcopy(candidate.model)
    context = RunContext(
        cost=FormatCost(scheduled_table), keep=keep, log=lambda message, **numbers: messages.append(message)
    )
    step = Prune.of(**SMALL, speedup=2.5, **fields)
    assert step.out_of_reach(candidate, context) is None
    (chosen,) = step.apply(candidate, context)
    shape, tried = (
        chosen.model.shape,
        [message for message in messages if "answers to 16 other texts differ" in message],
    )
    assert scheduled_table(shape).value <= scheduled_table(FULL).value / 2.5
    assert step.pruning.tries >= len(tried) == len(stored) >= 3
    assert sum(f"; {shape}" in message for message in tried) >= 1
    assert messages[-1] == f"{FULL} -> {shape}"
    (again,) = step.apply(replace(candidate, model=before), context)
    assert len(stored) == len(tried)
    assert again.model.shape == shape
    assert all(map(torch.equal, again.model.parameters(), chosen.model.parameters()))


def test_a_goal_for_a_choice_is_out_of_reach_if_no_width_meets_it(candidate):
    context = RunContext(cost=FormatCost(wide_table))
    for latency, least in ((0.9, None), (0.4, "3x16 heads 0,0,1 of 8 ffn 0, the smallest that sees its text")):
        assert Prune.of(**SMALL, latency_ms=latency).out_of_reach(candidate, context) is not None
        message = Prune.of(**SMALL, latency_ms=latency, hidden="auto").out_of_reach(candidate, context)
        assert (message is None) if least is None else (least in message)


def test_fewer_tokens_are_a_trait_and_no_slice_has_them():
    assert Prune.of(speedup=2.0, tokens="auto").further_traits() == {"fewer_tokens"}
    assert not Prune.of(speedup=2.0, hidden="auto").further_traits()
    assert Prune.of(speedup=2.0, tokens=0.5).trait_problems({"torch", "elastic"}) == [
        "tokens: slices of a super-network read all tokens; take a slice first, by search"
    ]
    assert "put prune before" in Prune.of(speedup=2.0, hidden="auto").trait_problems({"torch", "fewer_tokens"})[0]


def test_all_that_may_be_tried_is_in_the_estimate():
    rows, seconds = {"train": 10_000}, {}
    for hidden in (None, 24, "auto"):
        step = Prune.of(keep=0.5, cost="macs", hidden=hidden)
        seconds[hidden] = step.estimated_seconds(FULL, rows, 20.0)
    assert 2 * seconds[None] == seconds[24]
    assert 9 * seconds[None] < seconds["auto"] < 10 * seconds[None]
    measured = [Prune.of(speedup=2.0, hidden=hidden).estimated_seconds(FULL, rows, 20.0) for hidden in (None, "auto")]
    assert measured[1] > measured[0] + 4 * TABLE_SECONDS


def test_a_width_enters_the_key_and_none_leaves_it_as_it_was():
    assert "hidden" not in identity(Prune.of(speedup=2.0))
    assert "tokens" not in identity(Prune.of(speedup=2.0, hidden=24))
    assert identity(Prune.of(speedup=2.0, hidden=24))["hidden"] == 24
    assert identity(Prune.of(speedup=2.0, hidden="auto"))["hidden"] == "auto"


def test_keys_of_words_are_new_where_answers_of_the_model_decide():
    words, texts = toy_task("tokens", train=4), toy_task("classification", train=4)

    def marks(task, **fields):
        return dict(Prune.of(**fields).decisive_services({"seed": 7}, task, Target()))

    for fields in ({"speedup": 2.0}, {"heads": 1}, {"hidden": 24}, {"hidden": 24, "heads": 1, "criterion": "fisher"}):
        assert marks(words, **fields) == {"seed": 7, "labels": "first-pieces"}
        assert marks(texts, **fields) == {"seed": 7}
    for fields in ({"layers": 1}, *({"speedup": 2.0, "criterion": name} for name in ("fisher", "taylor", "ziplm"))):
        assert marks(words, **fields) == marks(texts, **fields) == {"seed": 7}


def test_orders_from_before_are_not_those_of_words(make_model, keep, stored):
    """A model is the same whatever the texts are, so the name of its order says which answers decided."""
    for kind in ("classification", "tokens"):
        task = toy_task(kind, train=16)
        tokenizer = toy_tokenizer(task)
        model = make_model(FULL, kind=kind, labels=task.num_labels, vocab_size=len(tokenizer))
        list(Prune.of(**SMALL, heads=2).apply(Candidate(model, tokenizer, task), RunContext(keep=keep)))
    assert [name.endswith("-first-pieces") for name in stored] == [False, True]


def test_repairs_of_fewer_channels_have_another_key_than_before_their_damping_was_chosen():
    for hidden in (24, "auto"):
        assert identity(Prune.of(speedup=2.0, hidden=hidden))["damping"] == "cross-validated"
        assert "damping" not in identity(Prune.of(speedup=2.0, hidden=hidden, reconstruct=False))
    assert "damping" not in identity(Prune.of(speedup=2.0))


BAD = {
    "no goal": ({}, "give a goal"),
    "two goals": ({"speedup": 2.0, "keep": 0.5}, "one goal, got speedup, keep"),
    "a teacher without a ratio": (
        {"latency_ms": 1.0, "relative_to": "teacher"},
        "relative_to: is for speedup and keep",
    ),
    "speed without latency": ({"speedup": 2.0, "cost": "macs"}, "need cost: latency"),
    "units": ({"keep": 0.5, "cost": "macs", "criterion": "magnitude"}, "different units"),
    "too wide": ({"hidden": 40}, "hidden: the model has 32 channels, got 40; use at most 32"),
    "too many heads": ({"heads": 9}, "has 4 in a layer, got 9; use at most 4"),
    "too many layers": ({"layers": 5}, "has 3 layers, got 5; use at most 3"),
    "impossible": (
        {"latency_ms": 0.5},
        "below the 0.0011 of 3x32 heads 0,0,1 of 8 ffn 0, the smallest that sees its text",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_goals(candidate, name):
    fields, message = BAD[name]
    with pytest.raises(InputError, match=message):
        pruned(candidate, **fields)


def learned(lowest=0, layers=3, number_format="int8", **target):
    """A predictor that was taught the latency of ``table``, exactly."""
    setting = Setting(style_of(Style()), Target(**target), number_format, 16)
    space = Space(
        Range(1, layers), Range(32, 32), Range(lowest, 4), Range(16 * lowest, 64, 8), Range(8, 8), per_layer=True
    )
    shapes = tuple(sample_shapes(space, 60))
    return Predictor(setting, shapes, tuple(table(shape).value for shape in shapes), "elsewhere")


def written(predictor, path):
    """Its shapes as a file of latency data, as measured there without noise."""
    timed = [
        TimedShape(shape, seconds, 0.0, (seconds,))
        for shape, seconds in zip(predictor.shapes, predictor.seconds, strict=True)
    ]
    group = Group(predictor.machine, predictor.setting, "first", timed[0], tuple(timed[1:]))
    write(Dataset(groups=(group,)), path)
    return str(path)


@pytest.mark.parametrize("goal", [{"speedup": 1.5}, {"speedup": 2.5}, {"latency_ms": 2.0}, {"keep": 0.45}])
def test_a_predictor_taught_by_a_table_leads_to_the_same_shape(candidate, make_model, tmp_path, goal):
    """As the cost of the context, and as a file."""
    twins = [
        replace(candidate, model=make_model(FULL, labels=3, vocab_size=len(candidate.tokenizer))) for _ in range(3)
    ]
    expected = pruned(twins[0], **goal).shape
    predictor = learned(threads=2)
    (twin,) = Prune.of(**SMALL, **goal).apply(twins[1], RunContext(cost=predictor))
    assert twin.model.shape == expected
    step = Prune.of(**SMALL, **goal, profile=written(predictor, tmp_path / "machine.jsonl"))
    assert not step.problems() + step.file_problems()
    (twin,) = step.apply(twins[2], RunContext(target=Target(threads=2)))
    assert twin.model.shape == expected


def test_nothing_becomes_narrower_than_what_was_measured(candidate, tmp_path):
    messages = []
    context = RunContext(log=lambda message, **numbers: messages.append(message))
    step = Prune.of(**SMALL, latency_ms=2.0, profile=written(learned(lowest=1), tmp_path / "machine.jsonl"))
    (narrowed,) = step.apply(candidate, context)
    assert all(layer.heads >= 1 and layer.ffn >= 16 for layer in narrowed.model.shape.layers)
    assert table(narrowed.model.shape).value <= 2e-3
    assert "learned from 60 shapes" in messages[0]
    assert not any("guess" in line for line in messages)
    with pytest.raises(InputError, match=r"3x32 heads 1 of 8 ffn 16, the smallest that the latency data know"):
        list(changed(step, latency_ms=1.5).apply(candidate, context))


def test_it_says_where_latency_is_a_guess(candidate):
    messages = []
    context = RunContext(cost=learned(layers=2), log=lambda message, **numbers: messages.append(message))
    list(Prune.of(**SMALL, speedup=1.5).apply(candidate, context))
    assert messages[-1].startswith("its latency is a guess: beyond what was measured in layers")


def test_latency_data_of_another_kind_are_refused(candidate, tmp_path):
    file = written(learned(threads=2), tmp_path / "machine.jsonl")
    step = Prune.of(**SMALL, speedup=2.0, profile=file)
    for target in (Target(), Target(threads=2, runtime="torch"), Target(threads=2, seq_len=99)):
        with pytest.raises(InputError, match=r"machine.jsonl: no series fits number_format int8.* hold: onnxruntime"):
            list(step.apply(candidate, RunContext(target=target)))
    assert "holds 0 shapes in float; at least 20" in changed(step, number_format="float").file_problems()[0]
    assert "no-file" in changed(step, profile="no-file.jsonl").file_problems()[0]
    with pytest.raises(InputError, match="measured in int8, so it cannot tell that in float"):
        list(Prune.of(**SMALL, speedup=2.0, number_format="float").apply(candidate, RunContext(cost=learned())))
    for goal in ({"size_mb": 1.0}, {"keep": 0.5, "cost": "macs"}, {"heads": 1}, {"layers": 1}):
        assert "profile: holds latencies" in Prune.of(**goal, profile=file).problems()[0]
    assert identity(step) != identity(changed(step, profile=None))


def test_without_scikit_learn_a_profile_is_refused_before_anything_runs(tmp_path, monkeypatch):
    step = Prune.of(speedup=2.0, profile=written(learned(), tmp_path / "machine.jsonl"))
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert "pip install 'limbeck[search]'" in step.file_problems()[0]


def test_one_pass_serves_every_goal(candidate, keep, monkeypatch):
    """Orders are kept by the weights and the texts: a second goal finds them, another model does not."""
    passes, second_order = [], surgeon.second_order
    monkeypatch.setattr(surgeon, "second_order", lambda *given: (passes.append(1), second_order(*given))[1])

    def shape(begun, **goal):
        copied = replace(begun, model=copy.deepcopy(begun.model))
        (other,) = Prune.of(**SMALL, criterion="obs", **goal).apply(
            copied, RunContext(cost=FormatCost(table), keep=keep)
        )
        return other.model.shape

    assert (
        shape(candidate, speedup=2.0)
        == pruned(replace(candidate, model=copy.deepcopy(candidate.model)), speedup=2.0, criterion="obs").shape
    )
    passes.clear()
    assert shape(candidate, speedup=3.0).weights < shape(candidate, speedup=1.5).weights
    assert not passes
    candidate.model.encoder.layers[0].down.weight.data.mul_(2)
    shape(candidate, speedup=2.0)
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ({"keep": 1e-4, "cost": "macs"}, "smallest that sees its text"),
        ({"size_mb": 1e-3}, "the goal of 1000 B is below"),
        ({"latency_ms": 1e-6}, "s is below the"),
        ({"speedup": 1e6}, "s is below the"),
        ({"layers": 9}, "layers: the model has"),
        ({"heads": 99}, "heads: the model has"),
        ({"hidden": 99}, "hidden: the model has"),
        ({"hidden": 24, "keep": 1e-4, "cost": "macs"}, "3x24 heads 0,0,1 of 8 ffn 0, the smallest that sees its text"),
    ],
)
def test_what_is_out_of_reach_is_known_without_training(candidate, goal, message):
    step, context = Prune.of(**goal, **SMALL), RunContext(cost=FormatCost(table))
    reason = step.out_of_reach(candidate, context)
    assert message in reason
    with pytest.raises(InputError) as failed:
        list(step.apply(candidate, context))
    assert reason in str(failed.value)


@pytest.mark.parametrize(
    "goal", [{"keep": 0.5, "cost": "macs"}, {"layers": 1}, {"heads": 1}, {"speedup": 1.5}, {"hidden": 24}]
)
def test_what_is_within_reach_is_left_to_the_step(candidate, goal):
    assert Prune.of(**goal, **SMALL).out_of_reach(candidate, RunContext(cost=FormatCost(table))) is None


@pytest.mark.parametrize("criterion", ["obs", "ziplm", "fisher", "taylor"])
@pytest.mark.parametrize("without", ["heads", "neurons"])
def test_layers_without_heads_or_neurons_are_pruned_as_others(make_model, candidate, criterion, without):
    heads, ffn = {"heads": (0, 64), "neurons": (4, 0)}[without]
    shape = Shape.uniform(layers=2, hidden=32, heads=heads, ffn=ffn, head_dim=8)
    model = make_model(shape, labels=3, vocab_size=len(candidate.tokenizer))
    smaller = pruned(replace(candidate, model=model), keep=0.6, cost="macs", criterion=criterion)
    assert smaller.shape <= shape
    assert smaller.shape != shape
    layer = pruned(replace(candidate, model=model), layers=1, layer_choice="importance", criterion=criterion)
    assert layer.shape.depth == 1


def test_a_model_without_layers_has_nothing_to_prune(make_model, candidate):
    model = make_model(Shape(32, 8, ()), labels=3, vocab_size=len(candidate.tokenizer))
    with pytest.raises(InputError, match="no layers"):
        pruned(replace(candidate, model=model), keep=0.5, cost="macs")
