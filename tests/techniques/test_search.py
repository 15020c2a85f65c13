import re
from dataclasses import replace

import numpy as np
import pytest
from format_cost import FormatCost

from limbeck.core.analytic_cost import as_shape
from limbeck.core.candidate import Candidate
from limbeck.core.field_groups import changed
from limbeck.core.measurement import Measurement
from limbeck.core.pareto import front
from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.core.step_keys import identity
from limbeck.core.target import Budget, Target
from limbeck.cost_models.collection import Collection, collect
from limbeck.cost_models.shape_sampling import sample_shapes
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.engine.run import run
from limbeck.errors import InputError, RecipeError
from limbeck.measure.dummy_model import Setting, style_of
from limbeck.measure.samples import typical_length
from limbeck.model.checkpoints import save_model
from limbeck.model.pruning.subnetwork import extract
from limbeck.recipe.recipe import Recipe, check
from limbeck.techniques.search import Search
from limbeck.techniques.supernet import Supernet

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)
SPACE = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(16, 64, 16), Range(8, 8))


@pytest.fixture
def supernet(make_model):
    task = toy_task(train=16, validation=40)
    tokenizer = toy_tokenizer(task)
    model = make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer))
    model.config.space = SPACE.to_json()
    return Candidate(model, tokenizer, task)


def latency(shape, number_format="int8"):
    """A machine on which every neuron and channel takes its time, and INT8 half of it; within 10 %."""
    value = 1e-6 * sum(shape.hidden * (row.heads + row.ffn) for row in shape.layers)
    value *= 0.5 if number_format == "int8" else 1.0
    return Measurement("latency_p50", value, "s", 0.9 * value, 1.1 * value)


@pytest.mark.parametrize("method", ["evolution", "random"])
@pytest.mark.parametrize("number_format", ["float", "int8"])
def test_winners_are_slices_that_fit(supernet, method, number_format):
    messages = []
    context = RunContext(cost=FormatCost(latency), log=lambda message, **numbers: messages.append(message))
    step = Search.of(method=method, speedup=2.0, at_least=0.3, population=5, generations=3, winners=3)
    step = changed(step, number_format=number_format)
    winners = list(step.apply(supernet, context))
    bound = latency(SPACE.largest, number_format).value / 2
    shapes = [as_shape(winner.model.shape) for winner in winners]
    assert len(set(shapes)) == 3
    for shape in shapes:
        assert shape in SPACE
        assert latency(shape, number_format).high <= bound
        assert latency(shape, number_format).value >= 0.3 * bound
    expected = extract(supernet.model, shapes[0]).state_dict()
    assert all(value.equal(expected[name]) for name, value in winners[0].model.state_dict().items())
    scores = [float(line.split("accuracy ")[1].split(",")[0]) for line in messages if ": accuracy" in line]
    assert scores == sorted(scores, reverse=True)


def test_the_rule_keeps_to_its_shapes(supernet):
    wide = Space(Range(1, 3), Range(16, 32, 8), Range(1, 4), Range(16, 64, 4), Range(8, 8))
    supernet.model.config.space = wide.to_json()
    step = Search.of(method="rule", keep=1.0, at_least=0.1, population=4, generations=1, winners=4, cost="macs")
    for winner in step.apply(supernet, RunContext()):
        shape = as_shape(winner.model.shape)
        assert 1.6 * shape.hidden <= shape.layers[0].ffn <= 1.9 * shape.hidden


def test_an_interrupted_search_asks_for_the_rest(supernet, tmp_path):
    step = Search.of(keep=0.9, at_least=0.1, cost="macs", population=4, generations=3)
    whole = [as_shape(winner.model.shape) for winner in step.apply(supernet, RunContext(scratch=tmp_path / "whole"))]
    stopped = 0

    def log(message, **numbers):
        nonlocal stopped
        stopped += bool(numbers)
        if stopped == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(step.apply(supernet, RunContext(scratch=tmp_path / "cut", log=log)))
    assert len((tmp_path / "cut" / "scores.jsonl").read_text().splitlines()) == 5
    assert [
        as_shape(winner.model.shape) for winner in step.apply(supernet, RunContext(scratch=tmp_path / "cut"))
    ] == whole


FRONT = {"method": "nsga2", "population": 6, "generations": 4, "samples": 30}


def test_a_front_spans_the_space_or_what_a_bound_leaves(supernet):
    messages = []
    context = RunContext(cost=FormatCost(latency), log=lambda message, **numbers: messages.append((message, numbers)))
    winners = list(Search.of(**FRONT, winners=3).apply(supernet, context))
    assert 1 <= len(winners) <= 3
    (line,) = [message for message, _ in messages if message.startswith("front of")]
    assert re.search(r"hypervolume \S+ ms x accuracy, from the reference point accuracy 0\.\d+, \S+ ms", line)
    judged = [numbers["score"] for _, numbers in messages if numbers]
    assert len(judged) == 24
    scores = {shape: accuracy for shape, accuracy in map(scored, messages) if shape}
    assert max(judged) in scores.values()  # the end of the front, for it adds the most where others have less
    ways = [(scores[str(winner.model.shape)], latency(winner.model.shape).value) for winner in winners]
    assert front(ways, ("max", "min")).all()
    bound = latency(SPACE.largest).value / 2
    for winner in Search.of(**FRONT, speedup=2.0, winners=3).apply(supernet, RunContext(cost=FormatCost(latency))):
        assert latency(winner.model.shape).high <= bound


def scored(line):
    match = re.match(r"(.*): accuracy ([\d.]+), latency", line[0])
    return (match[1], float(match[2])) if match else (None, None)


@pytest.mark.slow
def test_workers_change_nothing(supernet):
    step = Search.of(method="nsga2", keep=0.9, cost="macs", population=4, generations=2, winners=3)
    alone, together = (
        [as_shape(winner.model.shape) for winner in replace(step, workers=number).apply(supernet, RunContext())]
        for number in (1, 2)
    )
    assert alone == together
    assert identity(step) == identity(replace(step, workers=2))


def test_an_interrupted_front_ends_as_if_it_had_not_been(supernet, tmp_path):
    """Wherever it is stopped, and nothing is judged twice."""
    step = Search.of(**FRONT, cost="macs", winners=3)

    def run(scratch, dies_at=None):
        lines = []

        def log(message, **numbers):
            lines.append(message)
            if len(lines) == dies_at:
                raise KeyboardInterrupt

        return [
            as_shape(winner.model.shape) for winner in step.apply(supernet, RunContext(scratch=scratch, log=log))
        ], len(lines)

    whole, messages = run(tmp_path / "whole")
    for dies_at in (3, 7, messages - 1):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / str(dies_at), dies_at)
        assert run(tmp_path / str(dies_at))[0] == whole
        assert len((tmp_path / str(dies_at) / "scores.jsonl").read_text().splitlines()) == 24


def test_searches_share_a_storage(supernet, tmp_path):
    """The second finds all judged that the first did; one of something else is refused."""
    options = {**FRONT, "cost": "macs", "storage": str(tmp_path / "shared.jsonl"), "study_name": "ours"}
    judged = []

    def log(message, **numbers):
        judged.extend(["one"] if numbers else [])

    first = [
        as_shape(winner.model.shape) for winner in Search.of(**options, winners=2).apply(supernet, RunContext(log=log))
    ]
    assert len(judged) >= 24
    judged.clear()
    again = [
        as_shape(winner.model.shape) for winner in Search.of(**options, winners=2).apply(supernet, RunContext(log=log))
    ]
    assert again == first
    assert not judged
    for changes, word in (({"number_format": "float"}, "number format"), ({"keep": 0.5}, "bound")):
        with pytest.raises(InputError, match=rf"search\.study_name: 'ours' in .* different .*{word}"):
            list(Search.of(**{**options, **changes}).apply(supernet, RunContext()))
    with pytest.raises(InputError, match=r"different number format \(int8 by 1, here int8 by 4\)"):
        list(
            Search.of(**options).apply(supernet, RunContext(target=Target(batch=4)))
        )  # the ranges of activations span a batch
    train = supernet.task.split("train")
    train = replace(train, texts=[f"{text} {text}" for text in train.texts])
    longer = replace(supernet.task, splits={**supernet.task.splits, "train": train})
    with pytest.raises(InputError, match=r"different cost \(macs, \d+ of the largest, here macs, \d+ of the largest\)"):
        list(Search.of(**options).apply(replace(supernet, task=longer), RunContext()))
    supernet.model.classifier.bias.data += 1
    with pytest.raises(InputError, match="super-network"):
        list(Search.of(**options).apply(supernet, RunContext()))


def test_without_optuna_the_recipe_is_refused(monkeypatch):
    monkeypatch.setattr("limbeck.search.study_config.find_spec", lambda name: None)
    assert "pip install 'limbeck[search]'" in Search.of(method="nsga2").file_problems()[0]
    assert not Search.of().file_problems()


def test_a_storage_that_cannot_be_opened_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "text").write_text("no journal\nat all\n")
    nobody = "nothing://here"
    for storage in (tmp_path, tmp_path / "text", tmp_path / "text" / "below", nobody):
        (problem,) = Search.of(method="nsga2", storage=str(storage)).file_problems()
        assert problem.startswith(f"storage: '{storage}' cannot be opened as the storage of a search")
    for storage in (tmp_path / "new" / "search.jsonl", f"sqlite:///{tmp_path / 'search.db'}"):
        assert not Search.of(method="nsga2", storage=str(storage)).file_problems()
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_without_a_bound_the_recipe_is_refused():
    steps = [{"supernet": {}}, {"fork": [[{"search": {"cost": "macs"}}], [{"search": {"method": "nsga2"}}]]}]
    recipe = {"model": "minilm-l6", "task": "movie-reviews", "steps": [{"finetune": {}}, *steps]}
    (problem,) = check(recipe)
    assert str(problem).endswith("search: give a bound: keep")
    (problem,) = check({**recipe, "budget": {"latency_ms": 1.0}})
    steps[1]["fork"][0][0]["search"].pop("cost")
    assert not check({**recipe, "budget": {"latency_ms": 1.0}})
    (problem,) = check(recipe)
    assert "latency_ms, speedup or keep, or a budget with latency_ms" in str(problem)
    problems = check({**recipe, "budget": {"latency_ms": 1.0, "latency_statistic": "mean"}})
    reason = "the budget's latency_ms is the mean of a call, and costs of shapes are medians"
    assert [str(problem).partition("search: ")[2] for problem in problems] == [
        f"give latency_ms, speedup or keep: {reason}"
    ] * 2


def test_a_winner_knows_the_latency_it_should_have(supernet):
    (winner,) = Search.of(speedup=2.0, at_least=0.3, population=3, generations=1).apply(
        supernet, RunContext(cost=FormatCost(latency))
    )
    fact, evaluated = winner.facts
    assert (evaluated.name, evaluated.n, evaluated.is_prediction) == ("evaluated_shapes", 3, True)
    expected = latency(winner.model.shape)
    assert (fact.name, fact.value, fact.low, fact.high) == (
        "latency_predicted",
        expected.value,
        expected.low,
        expected.high,
    )
    assert fact.detail["number_format"] == "int8"
    assert fact.is_prediction
    (winner,) = Search.of(keep=0.9, at_least=0.1, cost="macs", population=3, generations=1).apply(
        supernet, RunContext()
    )
    (evaluated,) = winner.facts
    assert (evaluated.detail["cost"], evaluated.split) == ("macs", "validation")


def test_of_a_bound_that_every_slice_keeps_the_largest_are_judged(supernet):
    largest = latency(SPACE.largest)
    step = Search.of(latency_ms=10 * largest.high * 1e3, at_least=0.7, population=3, generations=1, winners=3)
    for winner in step.apply(supernet, RunContext(cost=FormatCost(latency))):
        assert 0.7 * largest.value <= latency(winner.model.shape).value <= largest.value


def test_what_cannot_be_searched(supernet):
    assert "one bound" in Search.of(latency_ms=1.0, keep=0.5).problems()[0]
    assert "storage needs method: nsga2, got method: random" in Search.of(method="random", storage="x").problems()
    assert "study_name needs a storage" in Search.of(method="nsga2", study_name="x").problems()
    assert "population should be at least 2" in Search.of(method="nsga2", population=1).problems()[0]
    assert "need cost: latency" in Search.of(latency_ms=1.0, cost="macs").problems()[0]
    with pytest.raises(InputError, match="give a bound"):
        list(Search.of().apply(supernet, RunContext(cost=FormatCost(latency))))
    for step, context in (
        (Search.of(latency_ms=1e-6), RunContext(cost=FormatCost(latency))),
        (Search.of(), RunContext(cost=FormatCost(latency), budget=Budget(latency_ms=1e-6))),
        (Search.of(method="nsga2", latency_ms=1e-6, at_least=0.85), RunContext(cost=FormatCost(latency))),
    ):
        with pytest.raises(InputError, match=r"no shape of the space costs between 8.5e-10 and 1e-09 s"):
            list(step.apply(supernet, context))
    other = Candidate(extract(supernet.model, Shape.uniform(2, 32, 4, 64)), supernet.tokenizer, supernet.task)
    other.model.config.space = SPACE.to_json()
    with pytest.raises(InputError, match="its space goes up to"):
        list(Search.of(keep=0.5, cost="macs").apply(other, RunContext()))
    del supernet.model.config.space
    with pytest.raises(InputError, match="train it with 'supernet' first"):
        list(Search.of(keep=0.5, cost="macs").apply(supernet, RunContext()))


def timed(shapes, setting, plan):
    """A machine without noise: four rounds of two calls."""
    seconds = [latency(shape, setting.number_format).value for shape in shapes]
    return np.tile(np.array(seconds)[:, None, None], (1, 4, 2))


def test_latency_may_be_that_of_another_machine(supernet, tmp_path, monkeypatch):
    """From a file alone, without a model of latency here."""
    target = Target(threads=2)
    setting = Setting(style_of(supernet.model.encoder.style), target, "int8", typical_length(supernet))
    shapes = tuple(sample_shapes(SPACE, 30))
    collect(Collection(shapes, (setting,), rounds=4, calls=2, seconds=0.0), tmp_path / "machine.jsonl", timer=timed)
    bound = latency(SPACE.largest).value / 2
    fields = {"latency_ms": bound * 1e3, "at_least": 0.3, "population": 5, "generations": 2}
    step = Search.of(**fields, profile=str(tmp_path / "machine.jsonl"))
    (winner,) = step.apply(supernet, RunContext(target=target))
    assert latency(winner.model.shape).value <= 1.1 * bound
    assert "elsewhere" not in winner.facts[0].detail  # it was measured here
    monkeypatch.setattr("limbeck.measure.samples.typical_length", lambda *batch: setting.seq_len + 1)
    (winner,) = step.apply(supernet, RunContext(target=target))
    assert winner.facts[0].detail["elsewhere"]  # but not for texts as long as these
    with pytest.raises(InputError, match="no series fits"):
        list(step.apply(supernet, RunContext(target=Target(threads=1))))
    assert "no-file" in Search.of(keep=0.5, profile="no-file.jsonl").file_problems()[0]
    assert identity(step) != identity(changed(step, profile=None))


def test_a_saved_super_network_can_be_searched(supernet, tmp_path):
    """As a command does: in a recipe of its own, whose model says that it is elastic."""
    save_model(supernet.model, supernet.tokenizer, tmp_path / "super")
    step = Search.of(keep=0.9, at_least=0.1, cost="macs", population=3, generations=1)
    folders = (tmp_path / "store", tmp_path / "run")
    result = run(Recipe(str(tmp_path / "super"), "toy", (step,)), *folders, task=supernet.task)
    assert not result.failed
    assert as_shape(result.open(result.front[0]).model.shape) in SPACE
    save_model(extract(supernet.model, FULL), supernet.tokenizer, tmp_path / "plain")
    with pytest.raises(RecipeError, match="needs 'elastic'; put 'supernet' before it"):
        run(Recipe(str(tmp_path / "plain"), "toy", (step,)), *folders, task=supernet.task)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({"latency_ms": 1e-4}, "the bound of 0.0001 ms is out of reach: 1x32 heads 1 of 8 ffn 16, the smallest slice"),
        ({"speedup": 1e4}, "is out of reach"),
        ({"keep": 1e-4, "cost": "macs"}, "MAC is out of reach"),
        ({"latency_ms": 0.7}, "surely below"),
    ],
)
def test_a_bound_out_of_reach_is_known_before_the_super_network_is_trained(make_model, bound, message):
    task = toy_task(train=16, validation=40)
    tokenizer = toy_tokenizer(task)
    candidate = Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)
    maker = Supernet.of(layers=(1, 3), heads=(1, 4), ffn=(16, 64), ffn_step=16)
    context = RunContext(
        cost=FormatCost(lambda shape, number_format: replace(latency(shape, number_format), high=1e-3))
    )
    assert message in Search.of(**bound).out_of_reach(candidate, context, [maker])
    assert Search.of(latency_ms=2.0).out_of_reach(candidate, context, [maker]) is None
    assert Search.of(**bound).out_of_reach(candidate, context, []) is None  # nobody says what its slices will be
    if bound.get("cost") != "macs":  # widths that no table knows
        assert (
            Search.of(**bound).out_of_reach(
                candidate, context, [replace(maker, slices=replace(maker.slices, hidden=(16, 32)))]
            )
            is None
        )
