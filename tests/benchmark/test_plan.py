import json
from dataclasses import replace

import pytest

from limbeck.benchmark.options import Grid, Timing
from limbeck.benchmark.plan import base_of, lengths_of, plan, points_of
from limbeck.core.shape import Shape
from limbeck.data.loading import load_task
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.checkpoints import save_model


def test_the_base_needs_no_download():
    shape, style = base_of("bert-large-uncased")
    assert shape == Shape.uniform(24, 1024, 16, 4096)
    assert style["activation"] == "gelu"


def test_a_model_folder_is_a_base_too(make_model, tmp_path):
    model = make_model(Shape.uniform(3, 32, 4, 64), max_positions=40)
    save_model(model, toy_tokenizer(toy_task(train=8)), tmp_path / "model")
    shape, style = base_of(str(tmp_path / "model"))
    assert shape == Shape.uniform(3, 32, 4, 64)
    assert style["max_positions"] == 40


def test_every_dimension_is_a_group():
    base = Shape.uniform(4, 128, 2, 512)
    points = points_of(base, Grid(layers=(1, 2), hidden=(64, 128), miniatures=True))
    assert [point.group for point in points].count("miniatures") == 24
    assert {point.group for point in points} == {"layers", "hidden", "miniatures"}
    pairs = points_of(base, Grid(layers=(1, 2), attention_ratio=(0.5, 1.0)))
    assert [point.group for point in pairs] == ["layers and attention"] * 2
    every = points_of(base, Grid(layers=(1, 2), attention_ratio=(0.5, 1.0), jointly=True))
    assert [point.group for point in every] == ["jointly"] * 4


def test_all_is_depths_widths_and_miniatures():
    base = Shape.uniform(layers=24, hidden=1024, heads=16, ffn=4096)
    everything = points_of(base, Grid(all=True))
    parts = points_of(base, Grid(layers=(2, 4, 6, 8, 10, 12), hidden=(128, 256, 512, 768), miniatures=True))
    assert (everything, len(everything)) == (parts, 34)
    assert len(points_of(base, Grid(all=True, layers=(3,)))) == 29
    for other in ({"jointly": True}, {"attention_ratio": (0.5,)}):
        with pytest.raises(InputError, match="--all varies depth and width by themselves"):
            points_of(base, Grid(all=True, **other))


def test_formats_and_lengths_are_settings():
    grid = Grid(layers=(1,), base="bert-base-uncased")
    bench = plan(grid, Timing(number_format=("float", "int8"), seq_len=(16, 32)))
    assert [(setting.number_format, setting.seq_len) for setting in bench.settings] == [
        ("float", 16),
        ("float", 32),
        ("int8", 16),
        ("int8", 32),
    ]
    assert plan(grid, Timing()).settings[0].seq_len == 128
    real = plan(grid, Timing(), load_task("movie-reviews"))
    assert real.lengths == lengths_of(load_task("movie-reviews"))
    assert 15 < real.settings[0].seq_len < 40
    fixed = plan(grid, Timing(seq_len=(64,)), load_task("movie-reviews"))
    assert (fixed.lengths, fixed.settings[0].seq_len) == ((), 64)


def test_real_lengths_are_those_that_a_model_sees(make_model, tmp_path):
    """Both texts of a pair, the words of a text that comes as words, and nothing that would be cut off."""

    def first(name, row):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(4)))
        return {*lengths_of(load_task(str(tmp_path / name)), 40)}

    pair = {"sentence1": "one two three", "sentence2": "one, two three!"}
    assert first("pairs", lambda n: pair | {"label": n % 2}) == {1 + 3 + 1 + 5 + 1}
    assert first("words", lambda n: {"tokens": ["one", "isn't", "two"], "tags": ["O", "B-X", "O"]}) == {1 + 5 + 1}
    assert first("long", lambda n: {"text": "word " * 50, "label": n % 2}) == {40}
    grid = Grid(layers=(1,), base="bert-base-uncased")
    for name, per_token in (("words", True), ("pairs", False)):  # a head for every token, or for the text
        assert plan(grid, Timing(seq_len=(8,)), load_task(tmp_path / name)).settings[0].per_token is per_token
    save_model(make_model(max_positions=40), toy_tokenizer(toy_task(train=8)), tmp_path / "model")
    grid = Grid(layers=(1,), base=str(tmp_path / "model"))
    assert max(plan(grid, Timing(), load_task(tmp_path / "long")).lengths) == 40
    assert plan(grid, Timing()).settings[0].seq_len == 40


def test_what_is_asked_for_twice_is_timed_once():
    bench = plan(Grid(layers=(2, 2), base="bert-base-uncased"), Timing(seq_len=(16, 16), number_format=("float",) * 2))
    assert (len(bench.points), len(bench.settings), len(bench.jobs())) == (1, 1, 3)


def test_a_title_names_all_that_is_timed():
    def messages_of(timing, *task):
        return plan(Grid(layers=(1,), base="bert-base-uncased"), timing, *task).target_text

    assert messages_of(Timing()) == "onnxruntime, 1 thread, batch 1, 128 tokens"
    assert messages_of(Timing(runtime=("torch", "onnxruntime"), seq_len=(512, 64))) == (
        "torch and onnxruntime, 1 thread, batch 1, 64 to 512 tokens"
    )
    assert messages_of(Timing(), load_task("movie-reviews")) == "onnxruntime, 1 thread, batch 1, real lengths"


def test_each_runtime_is_timed_in_the_precisions_that_it_has():
    grid = Grid(layers=(1,), base="bert-base-uncased")
    timing = Timing(
        runtime=("torch", "onnxruntime"), precision=("float32", "float16", "bfloat16"), number_format=("float", "int8")
    )
    forms = [(setting.target.runtime, setting.form) for setting in plan(grid, timing).settings]
    assert forms == [
        ("torch", "float"),
        ("torch", "float16"),
        ("torch", "bfloat16"),
        ("onnxruntime", "float"),
        ("onnxruntime", "float16"),
        ("onnxruntime", "int8"),
    ]
    compiled = plan(grid, replace(timing, compile=True, precision=("float16",), number_format=("float",)))
    assert [setting.form for setting in compiled.settings] == ["float16, compiled", "float16"]
    assert compiled.target_text == "torch and onnxruntime, 1 thread, batch 1, 128 tokens"
    with pytest.raises(InputError, match="got 'bfloat16'"):
        plan(grid, Timing(precision=("bfloat16",)))


def test_slices_that_are_timed_are_cut_as_asked():
    grid = Grid(attention_ratio=(0.5,), attention_approach="head_size_2", base="bert-base-uncased")
    (setting,) = plan(grid, Timing(weight_shared=True, runtime=("torch",))).settings
    assert setting.style["resplit"]
    assert "resplit" not in plan(grid, Timing()).settings[0].style


def test_what_is_wrong_is_told_before_anything_is_timed():
    grid = Grid(layers=(1,), base="bert-base-uncased")
    with pytest.raises(InputError, match="nothing to time"):
        plan(Grid(), Timing())
    with pytest.raises(InputError, match="only the runtime torch"):
        plan(grid, Timing(weight_shared=True))
    with pytest.raises(InputError, match="from 1 to the model's 512 positions, got 600 tokens"):
        plan(grid, Timing(seq_len=(16, 600)))
    with pytest.raises(InputError, match="batch: should be at least 1, got 0"):
        plan(grid, Timing(batch=0))
    with pytest.raises(InputError, match="torch finds no device 'cuda:97' here"):
        plan(grid, Timing(device="cuda:97"))
    with pytest.raises(InputError, match="INT8 is timed in the runtimes onnxruntime and openvino"):
        plan(grid, Timing(runtime=("torch",), number_format=("int8",)))
    with pytest.raises(InputError, match="equally long"):
        plan(Grid(layers=(1, 2), attention_ratio=(0.5,)), Timing())
