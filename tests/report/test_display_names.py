from __future__ import annotations

from dataclasses import replace

import stories

from limbeck.core.shape import Shape
from limbeck.report.display_names import changed_parameters, names, step_label


def test_names_tell_how_a_candidate_was_made():
    named = names(stories.run_summary())
    assert [named[key] for key in ("root", "t", "tx", "tq", "xa", "qb", "da")] == [
        "tiny-bert (PyTorch)",
        "teacher (PyTorch)",
        "teacher · ONNX",
        "teacher · INT8",
        "pruned 2.0x · distilled · ONNX",
        "pruned 4.0x · distilled · INT8",
        "pruned 2.0x · distilled (PyTorch)",
    ]


def test_equal_names_are_told_apart_by_what_differs():
    records = stories.records()
    records["qa"] = replace(records["qa"], parameters={"per_channel": True})
    records["q2"] = replace(records["qa"], key="q2", parameters={"per_channel": False})
    named = names(stories.run_summary(records=records, measured=("t", "qa", "q2")))
    assert named["qa"] == "pruned 2.0x · distilled · INT8 · per_channel True"
    assert named["q2"] == "pruned 2.0x · distilled · INT8 · per_channel False"
    records["q2"] = replace(records["qa"], key="q2", parameters={"per_channel": None})
    named = names(stories.run_summary(records=records, measured=("t", "qa", "q2")))
    assert named["q2"] == "pruned 2.0x · distilled · INT8 · per_channel not given"
    records["q3"] = replace(records["qa"], key="q3")
    named = names(stories.run_summary(records=records, measured=("qa", "q3")))
    assert len({named["qa"], named["q3"]}) == 2


def test_static_ranges_are_part_of_the_name():
    records = stories.records()
    records["q2"] = replace(records["qa"], key="q2", parameters={"mode": "static"})
    named = names(stories.run_summary(records=records, measured=("t", "qa", "q2")))
    assert (named["qa"], named["q2"]) == ("pruned 2.0x · distilled · INT8", "pruned 2.0x · distilled · static INT8")


def test_words_follow_the_shape_where_no_speedup_was_asked_for():
    record, parent = stories.records()["pa"], stories.records()["t"]
    assert step_label(replace(record, parameters={}), parent) == "pruned to 50 %"
    short = replace(record, parameters={}, shape=Shape(32, 8, parent.shape.layers[:1]))
    assert step_label(short, parent) == "pruned to 1 layer"
    narrow = replace(record, parameters={"hidden": 24}, shape=replace(parent.shape, hidden=24))
    assert step_label(narrow, parent) == "pruned to 24 channels"
    assert step_label(replace(record, step="mystery", shape=parent.shape), parent) == "mystery"


def test_words_name_the_attention_that_a_model_was_given():
    record, parent = stories.records()["pa"], stories.records()["t"]
    assert parent.shape.depth == 2
    for cores in (("linformer:64",) * 2, ("kernel", "window:8")):
        layers = tuple(replace(row, attention=core) for row, core in zip(parent.shape.layers, cores, strict=True))
        record_after = replace(record, step="linearize", parameters={}, shape=replace(parent.shape, layers=layers))
        assert step_label(record_after, parent) == f"linearised to {', '.join(dict.fromkeys(cores))}"


def test_words_say_how_many_tokens_layers_read_on_average():
    record, parent = stories.records()["pa"], stories.records()["t"]
    fewer = replace(record, step="prune_tokens", parameters={}, shape=parent.shape.with_tokens(0.5, 0.5))
    assert step_label(fewer, parent) == "tokens pruned to 75 %"
    narrow = replace(record, parameters={}, shape=fewer.shape.with_layer(0, ffn=1))
    assert step_label(narrow, fewer).startswith("pruned to ")


def test_stages_are_named_by_the_last():
    records = stories.records()
    first, teacher = records["pa"], {"relative_to": "teacher"}
    records["pa"] = replace(first, parameters={"speedup": 2.0, **teacher})
    half = replace(first.shape, layers=first.shape.layers[:1])
    records["pp"] = replace(first, key="pp", parent="da", shape=half, parameters={"speedup": 3.0, **teacher})
    records["dd"] = replace(records["da"], key="dd", parent="pp", shape=half)
    named = names(stories.run_summary(records=records, measured=("t", "da", "dd")))
    assert named["da"] == "pruned 2.0x · distilled (PyTorch)"
    assert named["dd"] == "pruned 3.0x in 2 stages · distilled (PyTorch)"


def test_words_name_the_latency_that_was_asked_for():
    record, parent = stories.records()["pa"], stories.records()["t"]
    assert step_label(replace(record, parameters={"latency_ms": 0.9}), parent) == "pruned to 0.9 ms"
    assert step_label(replace(record, step="search", parameters={"latency_ms": 1.25}), parent) == "searched to 1.25 ms"
    assert step_label(replace(record, parameters={"latency_ms": 0.9, "layers": 2}), parent) == "pruned to 50 %"


def test_changed_parameters_leave_out_defaults_of_a_registered_step(toys):
    name, kind = next((name, kind) for name, kind in toys.TOYS.items() if getattr(kind, "__dataclass_fields__", {}))
    field = next(iter(kind.__dataclass_fields__.values()))
    record = replace(stories.records()["t"], step=name, parameters={field.name: field.default, "other": 3})
    assert changed_parameters(record) == {"other": 3}


def test_a_slice_does_not_tell_of_its_super_network():
    records = stories.records()
    records["s"] = replace(records["t"], key="s", parent="t", step="supernet", traits=records["t"].traits | {"elastic"})
    records["pa"] = replace(records["pa"], parent="s", step="search", parameters={"latency_ms": 0.9, "speedup": None})
    named = names(stories.run_summary(records=records))
    assert named["qa"] == "searched to 0.9 ms · distilled · INT8"
    assert named["s"] == "made elastic (PyTorch)"
