import torch

from limbeck.core.shape import Shape
from limbeck.model.encoder import Gates
from limbeck.model.pruning.slicing import Cut, Scores, slice_to

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=24)


def masks(cut: Cut, shape: Shape) -> Gates:
    """Gates of 0 and 1 that silence what the cut removes."""
    heads, ffn, layers = torch.zeros(shape.depth, 4), torch.zeros(shape.depth, 24), torch.zeros(shape.depth)
    for position, index in enumerate(cut.layers):
        layers[index] = 1
        heads[index, list(cut.heads[position])] = 1
        ffn[index, list(cut.ffn[position])] = 1
    return Gates(heads, ffn, layers)


CUTS = {
    "heads": Cut((0, 1, 2), ((0, 2), (3,), (0, 1, 2, 3)), (tuple(range(24)),) * 3),
    "neurons": Cut((0, 1, 2), (tuple(range(4)),) * 3, ((1, 5, 23), tuple(range(12)), (7,))),
    "layers": Cut((0, 2), (tuple(range(4)),) * 2, (tuple(range(24)),) * 2),
    "all heads of a layer": Cut((0, 1, 2), ((), (1,), (0, 3)), (tuple(range(24)),) * 3),
    "all neurons of a layer": Cut((0, 1, 2), (tuple(range(4)),) * 3, ((), (3, 4), tuple(range(24)))),
    "everything at once": Cut((1, 2), ((), (2, 3)), ((0, 9), ())),
}


def test_sliced_equals_masked(make_model, make_batch):
    batch = make_batch()
    for name, cut in CUTS.items():
        masked = make_model(FULL)
        with torch.no_grad():
            expected = masked.run(batch, gates=masks(cut, FULL))[0]
            model = slice_to(make_model(FULL), cut)
            logits = model.run(batch)[0]
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5, msg=name)
        assert model.shape == cut.shape(FULL), name
        assert model.shape <= FULL, name


def test_a_cut_that_keeps_everything_changes_nothing(make_model, make_batch):
    batch, model = make_batch(), make_model(FULL)
    before = model.predict(batch)
    after = slice_to(model, Cut.everything(FULL)).predict(batch)
    assert (before == after).all()


def test_configuration_follows_the_cut(make_model):
    model = slice_to(make_model(FULL), CUTS["everything at once"])
    assert model.config.layer_heads == [0, 2]
    assert model.config.layer_ffn == [2, 0]
    assert len(model.encoder.layers) == 2


def test_best_keeps_the_highest_scores_in_order():
    import numpy as np

    shape = Shape.uniform(layers=1, hidden=32, heads=4, ffn=3)
    scores = Scores((np.array([0.1, 0.9, 0.5, 0.9]),), (np.array([3.0, 1.0, 2.0]),), np.ones(1))
    cut = Cut.best(scores.orders, shape.with_layer(0, heads=2, ffn=2))
    assert cut.heads == ((1, 3),)
    assert cut.ffn == ((0, 2),)
