import pytest

from limbeck.core.shape import Shape
from limbeck.engine.bench_options import Grid, Timing
from limbeck.engine.bench_plan import base_of, lengths_of, plan, points_of
from limbeck.errors import InputError
from limbeck.model.files import save_model


def test_the_base_needs_no_download():
    shape, style = base_of("bert-large-uncased")
    assert shape == Shape.uniform(24, 1024, 16, 4096)
    assert style["activation"] == "gelu"


def test_a_model_folder_is_a_base_too(make_model, tmp_path):
    from limbeck.data.synthetic import toy_task, toy_tokenizer

    model = make_model(Shape.uniform(3, 32, 4, 64), max_positions=40)
    save_model(model, toy_tokenizer(toy_task(train=8)), tmp_path / "model")
    shape, style = base_of(str(tmp_path / "model"))
    assert shape == Shape.uniform(3, 32, 4, 64)
    assert style["max_positions"] == 40


def test_every_dimension_is_a_group():
    base = Shape.uniform(4, 128, 2, 512)
    found = points_of(base, Grid(layers=(1, 2), hidden=(64, 128), miniatures=True))
    assert [point.group for point in found].count("miniatures") == 24
    assert {point.group for point in found} == {"layers", "hidden", "miniatures"}
    pairs = points_of(base, Grid(layers=(1, 2), attention_ratio=(0.5, 1.0)))
    assert [point.group for point in pairs] == ["layers and attention"] * 2
    every = points_of(base, Grid(layers=(1, 2), attention_ratio=(0.5, 1.0), jointly=True))
    assert [point.group for point in every] == ["jointly"] * 4


def test_formats_and_lengths_are_settings():
    grid = Grid(layers=(1,), base="bert-base-uncased")
    made = plan(grid, Timing(number_format=("float", "int8"), seq_len=(16, 32)))
    assert [(one.number_format, one.seq_len) for one in made.settings] == [
        ("float", 16),
        ("float", 32),
        ("int8", 16),
        ("int8", 32),
    ]
    assert plan(grid, Timing()).settings[0].seq_len == 128
    real = plan(grid, Timing(), "movie-reviews")
    assert real.lengths == lengths_of("movie-reviews")
    assert 15 < real.settings[0].seq_len < 40
    fixed = plan(grid, Timing(seq_len=(64,)), "movie-reviews")
    assert (fixed.lengths, fixed.settings[0].seq_len) == ((), 64)


def test_slices_that_are_timed_are_cut_as_asked():
    grid = Grid(attention_ratio=(0.5,), attention_approach="head_size_2", base="bert-base-uncased")
    (setting,) = plan(grid, Timing(weight_shared=True, runtime="torch")).settings
    assert setting.style["resplit"]
    assert "resplit" not in plan(grid, Timing()).settings[0].style


def test_what_is_wrong_is_told_before_anything_is_timed():
    grid = Grid(layers=(1,), base="bert-base-uncased")
    with pytest.raises(InputError, match="nothing to time"):
        plan(Grid(), Timing())
    with pytest.raises(InputError, match="only the runtime torch"):
        plan(grid, Timing(weight_shared=True))
    with pytest.raises(InputError, match="equally long"):
        plan(Grid(layers=(1, 2), attention_ratio=(0.5,)), Timing())
