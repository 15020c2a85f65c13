import copy
from dataclasses import replace

import family_models as families
import pytest
import torch
import torch.nn.functional as F

from limbeck.core.early_exits import EarlyExits
from limbeck.core.search_space import Range, Space
from limbeck.core.sentence_embedding import POOLINGS, SentenceEmbedding
from limbeck.core.shape import Shape
from limbeck.errors import InputError
from limbeck.model import embeddings, encoder, layers
from limbeck.model.early_exits import add_exits
from limbeck.model.family_table import FAMILIES
from limbeck.model.pruning import damping
from limbeck.model.pruning.channels import observe
from limbeck.model.pruning.damping import DAMPINGS
from limbeck.model.pruning.hidden_width import (
    Moments,
    fit_norm,
    moments,
    narrow_hidden,
    refusal,
    repaired,
)
from limbeck.model.pruning.read_points import read_points
from limbeck.model.pruning.rotation import is_rotatable
from limbeck.model.sentence_encoder import LimbeckForSentenceEmbedding

FULL = Shape.uniform(layers=3, hidden=32, heads=4, ffn=64)


@pytest.fixture
def batches(make_batch):
    return [make_batch(rows=16, seed=seed) for seed in range(4)]


def logits_of(model, batches):
    with torch.no_grad():
        return torch.cat([model.run(batch)[0].flatten(0, -2) for batch in batches])


def random_batches(model, count=4):
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count):
        ids = torch.randint(5, families.VOCABULARY, (16, 11), generator=generator)
        lengths = torch.randint(4, 12, (16, 1), generator=generator)
        mask = torch.arange(11) < lengths
        result.append(
            {"input_ids": torch.where(mask, ids, model.style.pad_token_id), "attention_mask": mask.long()}
            | {"labels": torch.zeros(16, dtype=torch.long)}
        )
    return result


@pytest.mark.parametrize("style", [{}, {"embedding_size": 12}, {"norm_first": True}])
def test_sliced_equals_masked_with_statistics_over_what_stays(make_model, batches, monkeypatch, style):
    """Masked: a norm takes mean and variance of the channels that stay, and puts out 0 in the others."""
    narrow = narrow_hidden(make_model(FULL, kind="tokens", **style), lambda: batches, 20, reconstruct=False)
    assert narrow.shape == replace(FULL, hidden=20)
    whole = make_model(FULL, kind="tokens", **style)
    same = whole.classifier.weight[:, :, None] == narrow.classifier.weight[:, None, :]
    stay = same.all(0).any(1)
    assert int(stay.sum()) == 20

    def masked_norm(x, norm):
        if x.shape[-1] != 32:
            return slice_norm(x, norm)
        y = torch.zeros_like(x)
        y[..., stay] = F.layer_norm(x[..., stay], (20,), norm.weight[stay], norm.bias[stay], norm.eps)
        return y

    slice_norm = layers.slice_norm
    logits = logits_of(narrow, batches)
    for module in (layers, embeddings, encoder):
        monkeypatch.setattr(module, "slice_norm", masked_norm)
    if "embedding_size" in style:  # embeddings are projected after their norm, so nothing else silences the rest
        with torch.no_grad():
            whole.encoder.embeddings.project.weight[~stay] = 0.0
            whole.encoder.embeddings.project.bias[~stay] = 0.0
            for layer in whole.encoder.layers:
                for part in (layer.query, layer.key, layer.value, layer.up):
                    part.weight[:, ~stay] = 0.0
    torch.testing.assert_close(logits, logits_of(whole, batches), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["text", "tokens"])
@pytest.mark.parametrize("family", FAMILIES)
def test_repair_is_nearer_to_the_whole_model(family, kind):
    whole, errors = families.ours(f"{family}-small", kind), {}
    batches = random_batches(whole)
    if kind == "tokens":
        for batch in batches:
            batch["labels"] = torch.zeros_like(batch["input_ids"])
    expected = logits_of(whole, batches)
    for reconstruct in (True, False):
        narrow = narrow_hidden(copy.deepcopy(whole), lambda: batches, 24, reconstruct=reconstruct)
        assert (narrow.shape.hidden, narrow.config.hidden_size) == (24, 24)
        assert narrow.shape.layers == whole.shape.layers
        errors[reconstruct] = float((logits_of(narrow, batches) - expected).square().mean())
    assert errors[True] < errors[False]
    assert errors[True] < float((expected - expected.mean(0)).square().mean())


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("linear", [(1,), (0, 1, 2)])
def test_layers_that_read_no_embeddings_of_distances_are_repaired_for_what_they_read(
    make_model, batches, share, linear
):
    """Linear attention scores no distances, so its queries and keys are those of hidden states alone."""
    shape = FULL
    for index in linear:
        shape = shape.with_layer(index, attention="kernel")
    style = {"pos_att_type": ("c2p", "p2c"), "share_att_key": share, "max_relative_positions": 16}
    style |= {"family": "deberta-v2", "relative_norm": True, "layer_attention": [row.attention for row in shape.layers]}
    repairs = repaired(make_model(shape, **style), batches, torch.eye(32, dtype=torch.float64)[:, :20])
    model = make_model(shape, **style)
    taps = [model.run(batch, taps=("attention_input", "mask"))[1] for batch in batches]
    index = linear[0]
    read = torch.cat([tap["attention_input"][index][tap["mask"][index]] for tap in taps]).detach()
    before = "embeddings.norm" if index == 0 else f"layers.{index - 1}.ffn_norm"
    norm, key = model.get_submodule(f"encoder.{before}"), model.encoder.layers[index].key
    scale, shift = repairs[f"encoder.{before}"]
    cut = F.layer_norm(((read - norm.bias) / norm.weight)[:, :20], (20,)).detach() * scale + shift
    weight, bias = repairs[f"encoder.layers.{index}.key"]
    wanted = (read @ key.weight.T + key.bias).detach()
    error = (cut @ weight.T + bias - wanted).square().mean()
    assert float(error) < 0.5 * float((wanted - wanted.mean(0)).square().mean())
    assert all(torch.isfinite(weight).all() for weight, _ in repairs.values())
    assert torch.isfinite(logits_of(narrow_hidden(model, lambda: batches, 20), batches)).all()


@pytest.mark.parametrize("share", [True, False])
def test_embeddings_of_distances_that_nothing_reads(make_model, batches, share):
    shape = Shape.uniform(layers=2, hidden=32, heads=0, ffn=64, head_dim=8)
    style = {"pos_att_type": ("c2p",), "share_att_key": share, "max_relative_positions": 16, "family": "deberta-v2"}
    narrow = narrow_hidden(make_model(shape, **style), lambda: batches, 20)
    assert narrow.encoder.relative.table.embedding_dim == 20
    assert torch.isfinite(logits_of(narrow, batches)).all()


def test_embeddings_as_wide_as_the_encoder_lose_the_same_channels(make_model, batches):
    """As in ELECTRA-base, whose configuration gives both widths."""
    plain, given = (
        narrow_hidden(make_model(FULL, **style), lambda: batches, 24) for style in ({}, {"embedding_size": 32})
    )
    assert given.encoder.embeddings.word.embedding_dim == 24
    assert given.encoder.embeddings.project is None
    torch.testing.assert_close(logits_of(given, batches), logits_of(plain, batches))


def test_channels_that_say_nothing_of_their_own_are_cut_exactly(make_model, batches):
    """Of a post-norm model whose last 8 channels repeat others in every sum, once norms are fitted to that."""
    model = make_model(FULL, kind="tokens")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            wide = (
                name.endswith("norm.weight") or name.endswith("norm.bias") or "attention_out" in name or "down" in name
            )
            if wide or "embeddings" in name:
                axis = -1 if "embeddings" in name else 0
                parameter.copy_(torch.cat([parameter.narrow(axis, 0, 16)] * 2, axis))
    expected = logits_of(model, batches)
    narrow = narrow_hidden(model, lambda: batches, 16)
    torch.testing.assert_close(logits_of(narrow, batches), expected, rtol=1e-2, atol=1e-2)


def test_a_norm_is_fitted_channel_by_channel():
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(90, 5, generator=generator, dtype=torch.float64)
    cut = whole[:, [3, 1]] * torch.tensor([2.0, -1.0]) + 0.5 * torch.randn(90, 2, generator=generator).double() + 1
    x, y = (torch.cat([rows, rows.new_ones(90, 1)], 1) for rows in (whole, cut))
    directions = torch.zeros(5, 2, dtype=torch.float64)
    directions[3, 0] = directions[1, 1] = 1.0
    sums = Moments(y.T @ y, x.T @ y, x.T @ x)
    scale, shift = fit_norm(sums, directions, bias=True)
    for channel, source in enumerate((3, 1)):
        columns = torch.stack([cut[:, channel], torch.ones(90, dtype=torch.float64)], 1)
        slope, offset = torch.linalg.lstsq(columns, whole[:, source, None]).solution.flatten()
        torch.testing.assert_close(torch.stack([scale[channel], shift[channel]]), torch.stack([slope, offset]))
        alone = (cut[:, channel] @ whole[:, source]) / cut[:, channel].square().sum()
        torch.testing.assert_close(fit_norm(sums, directions, bias=False)[0][channel], alone)


def test_a_channel_that_never_changes_becomes_its_mean():
    x = torch.tensor([[1.0, 4.0, 1.0], [2.0, 4.0, 1.0], [6.0, 4.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[3.0, 1.0]] * 3, dtype=torch.float64)
    directions = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    scale, shift = fit_norm(Moments(y.T @ y, x.T @ y, x.T @ x), directions, bias=True)
    assert (float(scale), float(shift)) == (0.0, 3.0)


def test_rescaled_sums_are_those_of_rescaled_rows():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(20, width, generator=generator, dtype=torch.float64) for width in (4, 2))
    scale, shift = torch.tensor([2.0, -3.0], dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    ones = torch.ones(20, 1, dtype=torch.float64)
    full, cut, changed = (torch.cat([rows, ones], 1) for rows in (x, y, y * scale + shift))
    sums = Moments(cut.T @ cut, full.T @ cut, full.T @ full).rescaled(scale, shift)
    torch.testing.assert_close(sums.own, changed.T @ changed)
    torch.testing.assert_close(sums.cross, full.T @ changed)


def test_readers_are_solved_for_what_the_cut_model_reads(make_model, batches):
    """By least squares over rows, norm and all, for one layer of a post-norm model."""
    model, leading = make_model(FULL), torch.eye(32, dtype=torch.float64)[:, :20]
    repairs = repaired(model, batches, leading)
    taps = [model.run(batch, taps=("ffn_input", "mask"))[1] for batch in batches]
    read = torch.cat([tap["ffn_input"][1][tap["mask"][1]] for tap in taps]).detach()
    norm, up = model.encoder.layers[1].attention_norm, model.encoder.layers[1].up
    scale, shift = repairs["encoder.layers.1.attention_norm"]
    cut = F.layer_norm((read - norm.bias) / norm.weight @ leading.float(), (20,)).detach() * scale + shift
    inputs = torch.cat([cut, torch.ones(len(cut), 1)], 1).double()
    wanted = (read @ up.weight.T + up.bias).detach().double()
    least = torch.linalg.lstsq(inputs, wanted).solution
    weight, bias = repairs["encoder.layers.1.up"]
    solved = torch.cat([weight, bias[:, None]], 1)
    error, best = ((inputs @ each - wanted).square().sum() for each in (solved.T, least))
    assert float(error) < 1.02 * float(best)


@pytest.mark.parametrize(
    ("kind", "style"),
    [
        ("classification", {}),
        ("classification", {"pooling": "mean"}),
        ("classification", {"norm_first": True, "embedding_norm": False}),
        ("embedding", {}),
    ],
)
def test_few_texts_are_not_fitted_too_closely(make_model, make_batch, monkeypatch, kind, style):
    """A head reads a vector for a text, so of 32 texts there are hardly more rows than it has unknowns."""
    held_out, errors = [make_batch(rows=64, seed=seed) for seed in range(10, 14)], {}
    expected = logits_of(make_model(FULL, kind=kind, **style), held_out)
    for dampings in (DAMPINGS, DAMPINGS[:1]):
        monkeypatch.setattr(damping, "DAMPINGS", dampings)
        for rows in (32, 512):
            calibration = [make_batch(rows=rows, seed=0)]
            narrow = narrow_hidden(make_model(FULL, kind=kind, **style), lambda: calibration, 26)  # noqa: B023
            errors[len(dampings), rows] = float((logits_of(narrow, held_out) - expected).square().mean())
    assert errors[len(DAMPINGS), 32] < 0.97 * errors[1, 32]
    assert errors[len(DAMPINGS), 512] == pytest.approx(errors[1, 512], rel=0.02)


def test_moments_are_sums_over_tokens_or_texts(make_model, batches):
    model, leading = make_model(FULL), torch.eye(32, dtype=torch.float64)[:, :20]
    points = read_points(model)
    tokens, texts = sum(int(batch["attention_mask"].sum()) for batch in batches), 64
    counts = [float(sums.own[-1, -1]) for sums in moments(model, batches, points, leading)]
    assert counts == [tokens] * 6 + [texts] * 2
    assert [float(gram[-1, -1]) for gram in observe(model, batches, points).grams] == counts


def test_the_head_of_words_is_fitted_to_the_tokens_that_it_answers(make_model, batches):
    """By least squares over the first tokens of words: what others say of the cut model is no part of the error."""
    model, leading = make_model(FULL, kind="tokens", labels=5), torch.eye(32, dtype=torch.float64)[:, :20]
    first = [batch["attention_mask"].bool() & (torch.arange(9) % 3 == 1) for batch in batches]
    for batch, answered in zip(batches, first, strict=True):
        batch["labels"] = torch.full_like(batch["input_ids"], -100).masked_fill(answered, 1)
    repairs, norm = repaired(model, batches, leading), model.encoder.layers[-1].ffn_norm
    with torch.no_grad():
        taps = [model.run(batch, taps=("hidden",))[1]["hidden"][-1] for batch in batches]
        read = torch.cat([states[answered] for states, answered in zip(taps, first, strict=True)])
        scale, shift = repairs["encoder.layers.2.ffn_norm"]
        cut = F.layer_norm((read - norm.bias) / norm.weight @ leading.float(), (20,)) * scale + shift
        inputs = torch.cat([cut, torch.ones(len(cut), 1)], 1).double()
        wanted = model.classifier(read).double()
    weight, bias = repairs["classifier"]
    solved, least = torch.cat([weight, bias[:, None]], 1).T, torch.linalg.lstsq(inputs, wanted).solution
    error, best = (float((inputs @ each - wanted).square().sum()) for each in (solved, least))
    assert error < 1.02 * best


def test_vectors_keep_their_width_and_nearly_their_direction(make_model, batches):
    expected = logits_of(make_model(FULL, kind="embedding"), batches)
    narrow = narrow_hidden(make_model(FULL, kind="embedding"), lambda: batches, 28)
    assert isinstance(narrow, LimbeckForSentenceEmbedding)
    assert (narrow.width, narrow.shape.hidden) == (32, 28)
    plain = narrow_hidden(make_model(FULL, kind="embedding"), lambda: batches, 28, reconstruct=False)
    near, far = (float((logits_of(model, batches) * expected).sum(-1).mean()) for model in (narrow, plain))
    assert near > far
    assert near > 0.9


@pytest.mark.parametrize(
    "style",
    [
        {},
        {"norm_first": True, "embedding_norm": False},
        {"norm_first": True, "embedding_norm": False, "norm_bias": False},
    ],
)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_of_every_pooling(make_model, batches, pooling, style):
    def make():
        model = make_model(FULL, kind="embedding", **style)
        model.embedding = SentenceEmbedding(pooling=pooling)
        model.keep_width(bias=True)  # as narrowing does
        return model

    fixed = {"max"} if style.get("norm_bias") is False else {"max", "mean_sqrt_len_tokens"}
    assert is_rotatable(make()) == (bool(style) and pooling not in fixed)
    expected, vectors = logits_of(make(), batches), logits_of(narrow_hidden(make(), lambda: batches, 28), batches)
    assert float((vectors * expected).sum(-1).mean()) > 0.85


@pytest.mark.parametrize("style", [{}, {"norm_first": True, "embedding_norm": False}])
def test_sums_over_the_root_of_the_length_keep_their_bias(make_model, style):
    """A constant in every state becomes one that grows with the text, which no bias of a map can make up for."""

    def make():
        model = make_model(FULL, kind="embedding", **style)
        model.embedding = SentenceEmbedding(pooling="mean_sqrt_len_tokens", normalize=False)
        model.keep_width(bias=True)
        with torch.no_grad():
            model.dense[0].bias.normal_(generator=torch.Generator().manual_seed(0))
        return model

    def texts(rows, tokens):
        ids = torch.randint(5, 60, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(rows, dtype=torch.long)}

    calibration = [texts(32, tokens) for tokens in (3, 5, 9)]
    narrow = narrow_hidden(make(), lambda: calibration, 28)
    assert not is_rotatable(make())
    torch.testing.assert_close(narrow.dense[0].bias, make().dense[0].bias)
    long = [texts(32, 48)]
    expected, plain = logits_of(make(), long), narrow_hidden(make(), lambda: calibration, 28, reconstruct=False)
    near, far = (float((logits_of(model, long) - expected).square().mean()) for model in (narrow, plain))
    assert near < far


def test_layers_that_read_fewer_tokens_keep_the_width(make_model, batches):
    """Tokens that are left behind come out of another norm than the last, and the head may read them."""
    shape = FULL.with_tokens(0.7, 0.5, 0.5)
    model = make_model(shape, layer_tokens=list(shape.tokens))
    with pytest.raises(InputError, match="put prune before prune_tokens"):
        narrow_hidden(model, lambda: pytest.fail("texts are read"), 28)
    assert narrow_hidden(model, lambda: pytest.fail("texts are read"), 32) is model


def test_the_label_names_and_the_state_of_the_head_stay(make_model, batches):
    model = make_model(FULL, labels=3)
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    model.fresh_head, model.untrained = True, "drawn"
    narrow = narrow_hidden(model, lambda: batches, 24)
    assert narrow.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert (narrow.fresh_head, narrow.untrained) == (True, "drawn")


def test_all_channels_change_nothing(make_model, batches):
    model = make_model(FULL)
    assert narrow_hidden(model, lambda: batches, 32) is model


def test_layers_without_heads_or_neurons(make_model, batches):
    shape = FULL.with_layer(0, heads=0).with_layer(1, ffn=0)
    narrow = narrow_hidden(make_model(shape), lambda: batches, 24)
    assert narrow.shape == replace(shape, hidden=24)
    assert torch.isfinite(logits_of(narrow, batches)).all()


def test_what_cannot_lose_channels_says_why(make_model, batches):
    with pytest.raises(InputError, match="the model has 32 channels, got 33; use at most 32"):
        narrow_hidden(make_model(FULL), lambda: batches, 33)
    with pytest.raises(InputError, match=r"as wide as its embeddings \(24\).*use 25 or 23"):
        narrow_hidden(make_model(FULL, embedding_size=24), lambda: batches, 24)
    model = make_model(FULL)
    add_exits(model, EarlyExits((1,)))
    assert "early exits, which come last" in refusal(model, 24)
    model = make_model(FULL)
    assert refusal(model, 24) is None
    assert "super-network" in refusal(model, 24, elastic=True)
    model.config.space = Space(Range(1, 3), Range(16, 32, 16), Range(1, 4), Range(32, 64, 32), Range(8, 8)).to_json()
    assert "super-network" in refusal(model, 24)
    assert refusal(model, 32) is None
