import pytest
import torch

from limbeck.core.search_space import Range, Space
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model.pruning.importance import magnitude
from limbeck.model.pruning.subnetwork import extract
from limbeck.train.objectives import LiveTeacher, Progress
from limbeck.train.supernet_config import ChannelOrder, SupernetConfig
from limbeck.train.supernet_loss import SandwichLoss

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


def test_ranges_that_are_not_given_stay_unless_none_is():
    assert SupernetConfig().free
    assert (
        str(SupernetConfig().space(Shape.uniform(6, 384, 12, 1536), "named").smallest) == "2x128 heads 4 of 32 ffn 256"
    )
    space = SupernetConfig(heads=(1, 4), ffn=(10, 40)).space(FULL, "named")
    assert space == Space(Range(3, 3), Range(32, 32, 16), Range(1, 4), Range(10, 40, 32), Range(8, 8, 4))
    assert SupernetConfig(layers=(1, 2), per_layer=True).space(FULL, "named").per_layer


def test_bad_ranges_are_told():
    assert SupernetConfig(layers=(3, 2), heads=(2, 1)).problems() == [
        "layers: the first should be the lower, got [3, 2]",
        "heads: the first should be the lower, got [2, 1]",
    ]
    for fields, message in (({"hidden": (16, 64)}, "has 32, got 64; use at most 32"), ({"ffn": (0, 8)}, "at least 1")):
        with pytest.raises(InputError, match=rf"named\.{next(iter(fields))}: .*{message}"):
            SupernetConfig(**fields).space(FULL, "named")


def test_a_step_of_training_costs_that_of_its_slices():
    assert SupernetConfig().relative_cost == pytest.approx(1.3 * 2.2)
    assert SupernetConfig(rule="single", samples=1).relative_cost == pytest.approx(1.3 * 0.5)


def test_a_model_too_small_for_the_ranges_is_refused_unless_it_has_a_space_already(make_model):
    model = make_model(FULL)
    assert SupernetConfig(layers=(1, 2)).impossible(model, "named") is None
    assert "named.layers: the model has 3, got 9" in SupernetConfig(layers=(1, 9)).impossible(model, "named")
    bare = make_model(Shape.uniform(layers=2, hidden=32, heads=0, ffn=64, head_dim=8))
    assert "slices need layers with heads" in SupernetConfig().impossible(bare, "named")
    fewer = make_model(FULL.with_tokens(0.5, 0.5, 0.5))
    assert "named: slices read all tokens" in SupernetConfig().impossible(fewer, "named")
    bare.config.space = {"any": "space"}
    assert SupernetConfig().impossible(bare, "named") is None


def scores(model):
    return magnitude(model, ())


@pytest.mark.parametrize("match", ["hidden", "relations"])
def test_a_sorted_copy_of_the_teacher_has_nothing_to_learn(make_model, make_batch, match):
    teacher, model, batch = make_model(FULL), make_model(FULL), make_batch()
    step = SupernetConfig(hidden=(16, 32))
    arranged = step.arrange(model, None, step.space(FULL, "named"), scores)
    assert sorted(arranged.channels) == list(range(32)) != list(arranged.channels)
    assert arranged.heads[-1] != (0, 1, 2, 3)
    losses = []
    for compared in (arranged, ChannelOrder(arranged.space)):
        terms = step.slice_terms((match,), teacher, compared)
        with torch.no_grad():
            largest = next(
                iter(SandwichLoss(terms, LiveTeacher(teacher), arranged.space)(model, batch, Progress(0, 1)))
            )
        losses.append(float(largest.terms[f"largest_{match}"]))
    assert losses[0] == pytest.approx(0.0, abs=1e-6)
    assert losses[1] > 1e-3


def test_of_a_teacher_with_other_heads_no_order_is_known(make_model):
    step, model = SupernetConfig(), make_model(FULL)
    arranged = step.arrange(model, None, step.space(FULL, "named"), scores)
    for shape in (Shape.uniform(3, 32, 8, 64), Shape.uniform(4, 32, 4, 64)):
        assert step.slice_terms(("relations",), make_model(shape), arranged)["relations"][1].order == ()


def test_of_a_narrower_model_the_projection_knows_the_channels_it_has(make_model):
    step = SupernetConfig(hidden=(16, 24), hidden_step=8)
    arranged = step.arrange(make_model(FULL), None, step.space(FULL, "named"), scores)
    project = step.slice_terms(("hidden",), make_model(FULL), arranged)["hidden"][1].project.weight
    expected = torch.zeros(32, 24)
    expected[list(arranged.channels[:24]), range(24)] = 1.0
    assert torch.equal(project, expected)


def test_what_slices_were_trained_in_stays_as_it_is(make_model):
    """Parts that matter in another order by now are left alone; channels are sorted if all slices had all of them."""
    model, heads = make_model(FULL), SupernetConfig(heads=(1, 4))
    first = heads.arrange(model, None, heads.space(FULL, "named"), scores)
    assert first.channels == ()
    first.mark(model, answers=True)
    with torch.no_grad():
        model.encoder.layers[0].attention_out.weight[:, 24:] *= 100.0  # of the head that mattered least
    before = [tensor.clone() for tensor in model.state_dict().values()]
    again = heads.arrange(model, ChannelOrder.of(model), heads.space(FULL, "named"), scores)
    assert again == first
    assert all(map(torch.equal, before, model.state_dict().values()))
    narrow = SupernetConfig(hidden=(16, 32))
    second = narrow.arrange(model, again, narrow.space(FULL, "named"), scores)
    assert second.heads == first.heads
    assert sorted(second.channels) == list(range(32)) != list(second.channels)
    assert narrow.arrange(model, second, narrow.space(FULL, "named"), scores) == second
    unsorted = SupernetConfig(sort=False, hidden=(16, 32)).arrange(
        make_model(FULL), None, narrow.space(FULL, "named"), scores
    )
    assert unsorted == ChannelOrder(narrow.space(FULL, "named"))
    assert narrow.arrange(make_model(FULL), unsorted, narrow.space(FULL, "named"), scores) == unsorted


@pytest.mark.parametrize("answers", [True, False])
def test_what_training_leaves_in_a_model_is_read_back(make_model, answers):
    model, teacher = make_model(FULL), make_model(FULL, seed=1)
    assert ChannelOrder.of(model) is None
    heads = ((3, 1, 2, 0), (0, 1, 2, 3), (1, 0, 3, 2))
    arranged = ChannelOrder(SupernetConfig(hidden=(16, 32)).space(FULL, "named"), tuple(reversed(range(32))), heads)
    arranged.mark(model, answers)
    assert ChannelOrder.of(model) == arranged
    assert arranged.relative_to(teacher) == arranged
    arranged._replace(space=SupernetConfig().space(FULL, "named"), channels=()).mark(
        teacher, answers
    )  # the heads were sorted before
    assert arranged.relative_to(teacher) == arranged._replace(heads=())
    arranged.mark(teacher, answers)  # such as one that was fine-tuned from there
    assert arranged.relative_to(teacher) == ChannelOrder(arranged.space)
    assert ChannelOrder.of(extract(model, FULL)) is None  # a slice of it says nothing
    model.encoder.shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    assert ChannelOrder.of(model) is None  # of another shape, so of another space
