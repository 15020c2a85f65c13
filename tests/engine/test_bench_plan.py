import pytest

from limbeck.core.shape import Shape
from limbeck.core.target import Target
from limbeck.engine.bench_plan import base_of, lengths_of, plan, points_of
from limbeck.errors import InputError
from limbeck.model.files import save_model

ASKED = {"layers": (), "hidden": (), "miniatures": False, "ratios": ()}


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
    found = points_of(base, (1, 2), (64, 128), True)
    assert [point.group for point in found].count("miniatures") == 24
    assert {point.group for point in found} == {"layers", "hidden", "miniatures"}
    assert [point.group for point in points_of(base, (1, 2), ratios=(0.5, 1.0))] == ["layers and attention"] * 2


def test_formats_and_lengths_are_settings():
    made = plan(
        "bert-base-uncased", ASKED | {"layers": (1,)}, "head_num", Target(), formats=("float", "int8"), lengths=(16, 32)
    )
    assert [(one.number_format, one.seq_len) for one in made.settings] == [
        ("float", 16),
        ("float", 32),
        ("int8", 16),
        ("int8", 32),
    ]
    real = plan("bert-base-uncased", ASKED | {"layers": (1,)}, "head_num", Target(), task="movie-reviews")
    assert real.lengths == lengths_of("movie-reviews")
    assert 15 < real.settings[0].seq_len < 40


def test_what_is_wrong_is_told_before_anything_is_timed():
    with pytest.raises(InputError, match="nothing to time"):
        plan("bert-base-uncased", ASKED, "head_num", Target())
    with pytest.raises(InputError, match="only the runtime torch"):
        plan("bert-base-uncased", ASKED | {"layers": (1,)}, "head_num", Target(), shared=True)
    with pytest.raises(InputError, match="equally long"):
        plan("bert-base-uncased", ASKED | {"layers": (1, 2), "ratios": (0.5,)}, "head_num", Target())
