from __future__ import annotations

from toy_runs import values

from limbeck.engine.run import read_result
from limbeck.engine.store.gc import collect
from limbeck.recipe.recipe import Fork, load_recipe


def test_steps_make_candidates_with_lineage(go, toys):
    result = go(toys.ToyTrain(epochs=2, by=0.5), toys.ToyPrune(0.5), toys.ToyExport())
    (last,) = result.front
    assert [record.step for record in result.ancestors(last)] == ["model", "toy-train", "toy-prune", "toy-export"]
    assert [sorted(record.traits) for record in result.ancestors(last)] == [
        ["torch"],
        ["teacher", "torch"],
        ["teacher", "torch"],
        ["onnx", "teacher"],
    ]
    assert result.open(last).model == toys.ToyModel([2.0, 3.0], 4, "onnxruntime")
    assert result.records[last].shape.layers[0].ffn == 4
    assert result.ancestors(last)[1].notes == ("trained 2 epochs",)
    assert result.records[result.teacher].step == "toy-train"
    assert result.ok
    assert load_recipe(result.folder / "recipe.yaml") == result.recipe


def test_what_a_technique_foretells_is_in_the_record_and_is_no_measurement(go, toys):
    result = go(toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyExport())
    for each in (result, go(toys.ToyTrain(), toys.ToyLevels((4, 2)), toys.ToyExport()), read_result(result.folder)):
        predicted = values(each, "latency_predicted")
        assert sorted(predicted.values()) == [0.002, 0.004]
        assert {each.records[key].step for key in predicted} == {"toy-levels"}
        assert each.measured == []


def test_finished_work_is_not_repeated(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels(), toys.ToyQuality())
    first = go(*steps)
    done = toys.calls()
    second = go(*steps)
    assert toys.calls() == done
    assert second.records == first.records
    assert [event["known"] for event in go.events if event["kind"] == "candidate_end"] == [True, True]


def test_deleted_objects_lose_no_facts_and_come_back(go, toys):
    steps = (toys.ToyTrain(), toys.ToyLevels(), toys.ToyQuality())
    first = go(*steps)
    collect(first.store)
    done = toys.calls()
    assert go(*steps).records == first.records
    assert toys.calls() == done  # facts and records need no objects
    longer = go(*steps, toys.ToyPrune())
    assert set(first.records) < set(longer.records)
    assert longer.open(longer.front[1]).model.ffn == 1
    collect(first.store)
    assert first.open(first.front[0]).model.ffn == 4


def test_a_damaged_object_is_made_again(go, toys):
    first = go(toys.ToyTrain())
    (first.store.objects / first.front[0] / "config.json").write_text("{}")
    second = go(toys.ToyTrain(), toys.ToyPrune())
    assert second.open(second.front[0]).model == toys.ToyModel([3.0, 4.0], 4)
    assert any("will be made again" in event.get("message", "") for event in go.events)
    path = first.store.objects / first.front[0] / "config.json"
    path.write_text("x" * path.stat().st_size)  # the right size, the wrong content
    third = go(toys.ToyTrain(), toys.ToyPrune(0.25))
    assert third.open(third.front[0]).model == toys.ToyModel([3.0, 4.0], 2)


def test_forks_start_from_the_same_front_and_share_work(go, toys):
    branches = Fork(
        (
            (toys.ToyTrain(1), toys.ToyPrune(0.5)),
            (toys.ToyTrain(1), toys.ToyPrune(0.25)),
            (toys.ToyTrain(1), toys.ToyPrune(0.25)),
            (),
        )
    )
    result = go(branches, toys.ToyQuality())
    assert [result.records[key].step for key in result.front] == ["toy-prune", "toy-prune", "model"]
    assert toys.calls().count("epoch 1.0 0") == 1
    assert [fact for fact in values(result).values()] == [3.0, 5.0, 5.0]


def test_several_children_have_keys_with_numbers(go, toys):
    result = go(toys.ToyLevels((4, 2, 1)))
    first, second, third = result.front
    assert (second, third) == (f"{first}-1", f"{first}-2")
    assert [result.open(key).model.ffn for key in result.front] == [4, 2, 1]


def test_a_changed_task_is_kept_with_the_candidate(go, toys):
    result = go(toys.ToyAugment(), toys.ToyPrune())
    assert result.open(result.front[0]).task.split("train").texts == ("good", "bad", "more")
    assert len(list(result.store.tasks.iterdir())) == 2


def test_only_declared_services_enter_keys(go, toys):
    prune = go(toys.ToyPrune()), go(toys.ToyPrune(), target=running_target(threads=2))
    clock = toys.ToyClock()
    assert prune[0].front == prune[1].front
    before = toys.calls()
    go(clock)
    go(clock, target=running_target(threads=2))
    assert toys.calls()[len(before) :].count("clock 1") == 2
    first, second = go(toys.ToyTrain()), go(toys.ToyTrain(), seed=1)
    assert first.front != second.front


def running_target(**more):
    from limbeck.core.target import Target

    return Target(**more)


def test_the_teacher_is_the_first_that_was_trained(go, toys):
    result = go(toys.ToyTrain(by=2.0), toys.ToyPrune(), toys.ToyTrain(by=5.0), toys.ToyPrune(), toys.ToyImitate())
    assert result.open(result.front[0]).model.weights == [5.0, 6.0]
    assert result.records[result.teacher].parent == result.ancestors(result.front[0])[0].key


def test_replicas_repeat_the_chosen_with_other_seeds(go, toys):
    steps = (toys.ToyTrain(1), toys.ToyLevels((4, 2)), toys.ToyQuality(), toys.ToyClock(), toys.ToyBest())
    result = go(*steps, replicas=3)
    (chosen,) = result.chosen
    twins = result.replicas[chosen]
    assert [result.records[key].fact("quality").value for key in (chosen, *twins)] == [5.0, 7.0, 9.0]
    assert [result.records[key].shape for key in twins] == [result.records[chosen].shape] * 2
    assert not any(result.records[key].fact("latency_p50") for key in twins)


def test_events_count_the_steps(go, toys):
    go(toys.ToyTrain(), Fork(((toys.ToyPrune(),), ())), toys.ToyQuality())
    starts = [event for event in go.events if event["kind"] == "step_start"]
    assert [(event["path"], event["position"], event["total"]) for event in starts] == [
        ("steps[0]", 1, 3),
        ("steps[1].fork[0][0]", 2, 3),
        ("steps[2]", 3, 3),
    ]
    assert go.events[-1]["kind"] == "finished"
    (shown,) = [event for event in go.events if event["kind"] == "progress"][:1]
    assert (shown["step"], shown["numbers"]) == ("toy-train", {"step": 1, "total": 2})
