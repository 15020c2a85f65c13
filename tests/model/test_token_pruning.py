"""Fewer tokens in later layers, against a reference that takes one text and one token after the other."""

from __future__ import annotations

import json

import pytest
import torch

from limbeck.core.shape import Shape, kept_tokens
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.attention import bias_by_distance, rotation
from limbeck.model.checkpoints import fingerprint, open_model, save_model
from limbeck.model.encoder import Gates
from limbeck.model.layers import Positions
from limbeck.model.pretrained import to_transformers
from limbeck.model.pruning.slicing import Cut, slice_to
from limbeck.model.token_pruning import RemainingTokens, kept, received_attention

SHAPE = Shape.uniform(layers=4, hidden=32, heads=4, ffn=48).with_tokens(0.8, 0.8, 0.301, 0.2)
STYLES = {
    "bert": {},
    "roberta": {"position_offset": 1, "pad_token_id": 1, "token_types": 1},
    "pre-norm": {"norm_first": True},
    "rotary": {"rotary_theta": (100.0,), "absolute_positions": False, "token_types": 0},
    "relative": {"relative_buckets": 8, "relative_heads": 4, "relative_distance": 9, "token_types": 0},
}


def batch_of(lengths, longest, pad=0):
    ids = torch.randint(5, 60, (len(lengths), longest), generator=torch.Generator().manual_seed(longest))
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.where(mask.bool(), ids, pad), "attention_mask": mask}


def slow_states(model, ids):
    """Encode one text without padding, and put the last states of all its tokens together at the end."""
    encoder, shape, length = model.encoder, model.shape, ids.shape[1]
    x = encoder.embeddings(ids, None, shape.hidden, None)
    there, states = list(range(length)), [None] * length
    for index, (layer, row) in enumerate(zip(encoder.layers, shape.layers, strict=True)):
        at, turn, bias = torch.tensor(there), None, None
        if layer.rotary_theta is not None:
            turn = tuple(table[at] for table in rotation(length, shape.head_dim, layer.rotary_theta, ids.device))
        if encoder.position_bias is not None:
            whole = bias_by_distance(encoder.position_bias.weight, length, encoder.style.relative_distance)
            bias = whole[:, at][:, :, at][None]
        taps = {"attention": []}
        x = layer(x, None, row, shape.head_dim, Gates(), taps, None, Positions(bias, None, turn))
        for number, position in enumerate(there):
            states[position] = x[0, number]
        share = min([1, *(each.tokens for each in shape.layers[: index + 1] if each.attention == "softmax")])
        count = min(len(there), max(1, -(-length * round(1000 * share) // 1000)))
        if index + 1 < shape.depth and count < len(there) and row.attention == "softmax":
            weights = taps["attention"][0][0].softmax(-1)
            received = [sum(float(head[:, number].sum()) for head in weights) for number in range(len(there))]
            order = sorted(range(1, len(there)), key=lambda number: (-received[number], number))
            remain = sorted([0, *order[: count - 1]])
            x, there = x[:, remain], [there[number] for number in remain]
    whole = torch.stack(states)[None]
    return whole if encoder.norm is None else encoder.norm(whole)


CORES = {
    "local": ("softmax", "local:3", "softmax", "local:3"),
    "window": ("window:3", "softmax", "window:3", "softmax"),
    "kernel": ("softmax", "kernel", "kernel", "kernel"),
}
"""Cores that read fewer tokens and choose none."""


@pytest.mark.parametrize("cores", CORES)
@torch.no_grad()
def test_layers_with_other_cores_read_what_remains(make_model, cores):
    shape = SHAPE.with_attention(*CORES[cores])
    model = make_model(shape, **STYLES["rotary"])
    lengths = (17, 1, 2, 9, 16)
    batch = batch_of(lengths, 17)
    states = model.encoder(batch["input_ids"], batch["attention_mask"])[0]
    for row, length in enumerate(lengths):
        expected = slow_states(model, batch["input_ids"][row : row + 1, :length])
        torch.testing.assert_close(states[row : row + 1, :length], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("style", STYLES)
@torch.no_grad()
def test_a_batch_is_encoded_as_its_texts_one_by_one(make_model, style):
    model = make_model(SHAPE, **STYLES[style])
    lengths = (17, 1, 2, 9, 16)
    batch = batch_of(lengths, 17, model.encoder.style.pad_token_id)
    states = model.encoder(batch["input_ids"], batch["attention_mask"])[0]
    changed = make_model(SHAPE.with_tokens(1, 1, 1, 1), **STYLES[style])
    assert not torch.allclose(changed.encoder(batch["input_ids"], batch["attention_mask"])[0], states, atol=0.01)
    for row, length in enumerate(lengths):
        expected = slow_states(model, batch["input_ids"][row : row + 1, :length])
        torch.testing.assert_close(states[row : row + 1, :length], expected, atol=2e-5, rtol=1e-4)


def test_without_a_mask_all_tokens_are_real(make_model):
    model, batch = make_model(SHAPE), batch_of((11, 11), 11)
    masked, plain = (model.encoder(batch["input_ids"], mask)[0] for mask in (batch["attention_mask"], None))
    torch.testing.assert_close(plain, masked)


@pytest.mark.parametrize("share", [0.001, 0.2, 1 / 3, 0.5, 0.7, 0.999, 1.0])
def test_tokens_are_counted_as_the_shape_counts_them(share):
    share = round(share, 3)
    lengths = torch.arange(1, 600)
    assert kept(share, lengths).tolist() == [kept_tokens(share, int(length)) for length in lengths]


def test_attention_received_is_a_sum_over_heads_and_the_tokens_that_attend():
    scores = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[True, True, True, True], [True, True, False, False]])
    received = received_attention(scores, real, torch.tensor([1.0, 0.0, 1.0]))
    expected = torch.zeros(2, 4)
    for text in range(2):
        for head in (0, 2):
            for query in range(4):
                if real[text, query]:
                    expected[text] += scores[text, head, query].softmax(-1)
    torch.testing.assert_close(received, expected)


def test_the_first_token_stays_and_of_equal_ones_the_earlier():
    ids = torch.zeros(2, 6, dtype=torch.long)
    remaining = RemainingTokens(torch.tensor([[1] * 6, [1] * 3 + [0] * 3]), ids)
    row = SHAPE.with_tokens(0.5, 0.5, 0.5, 0.5).layers[0]
    scores = torch.zeros(2, 4, 6, 6)
    scores[0, :, :, 4] = 3.0
    x = torch.arange(12.0).reshape(2, 6, 1)
    assert remaining.fewer_after(row, Gates())
    assert remaining.drop(x, scores, row, Gates())[0, :, 0].tolist() == [0.0, 1.0, 4.0]
    assert remaining.positions.tolist() == [[0, 1, 4], [0, 1, 6]]  # 6 stands for no token
    assert remaining.mask.tolist() == [[True] * 3, [True, True, False]]
    assert not remaining.fewer_after(row, Gates())
    merged = remaining.merged(torch.full((2, 3, 1), -1.0))[..., 0]
    assert merged.tolist() == [[-1, -1, 2, 3, -1, 5], [-1, -1, 8, 9, 10, 11]]


@torch.no_grad()
def test_sliced_equals_masked(make_model):
    """Removed heads judge no tokens, and a layer without heads or a removed layer leaves none behind."""
    model, batch = make_model(SHAPE), batch_of((13, 5), 13)
    heads = ((0, 2), (), (1, 2, 3), (0, 3))
    for layers in ((0, 1, 2, 3), (1, 2, 3), (0, 3), (2,)):
        cut = Cut(layers, tuple(heads[layer] for layer in layers), tuple(tuple(range(48)) for _ in layers))
        gates = Gates(torch.zeros(4, 4), None, torch.zeros(4))
        for layer in layers:
            gates.heads[layer, list(heads[layer])] = 1
            gates.layers[layer] = 1
        masked = model.run(batch, gates=gates)[0]
        again = make_model(SHAPE)
        torch.testing.assert_close(slice_to(again, cut).run(batch)[0], masked, rtol=1e-4, atol=1e-5)


def test_a_slice_of_a_shape_leaves_behind_what_that_shape_says(make_model):
    model, batch = make_model(SHAPE.with_tokens(1, 1, 1, 1)), batch_of((13, 5), 13)
    torch.testing.assert_close(model.run(batch, shape=SHAPE)[0], make_model(SHAPE).run(batch)[0])


def test_states_that_were_left_behind_stay_and_take_no_gradient_from_taps(make_model):
    model, batch = make_model(SHAPE), batch_of((10,), 10)
    hidden, taps = model.encoder(batch["input_ids"], batch["attention_mask"], taps=("hidden", "mask", "context"))
    assert [tuple(each.shape) for each in taps["hidden"]] == [(1, 10, 32)] * 5
    assert [each.shape[1] for each in taps["context"]] == [each.shape[1] for each in taps["mask"]] == [10, 8, 8, 4]
    torch.testing.assert_close(taps["hidden"][-1], hidden)
    same = (taps["hidden"][3] == taps["hidden"][4]).all(-1)[0]
    assert int(same.sum()) == 6, "those that the last layer did not read"
    removed = int(same.nonzero()[0])
    weight = model.encoder.layers[0].up.weight
    tapped = taps["hidden"][-1][0, removed].sum()
    (from_tap,) = torch.autograd.grad(tapped, weight, retain_graph=True, allow_unused=True)
    (from_output,) = torch.autograd.grad(hidden[0, removed].sum(), weight)
    assert from_tap is None or not from_tap.any()
    assert from_output.any()


def test_attention_weights_are_refused(make_model):
    with pytest.raises(ValueError, match="layers pass on fewer tokens"):
        make_model(SHAPE)(**batch_of((5,), 5), output_attentions=True)


def test_a_saved_model_answers_the_same(make_model, tmp_path):
    task = toy_task("classification", train=8, validation=4, test=4)
    tokenizer = toy_tokenizer(task)
    model = make_model(SHAPE, labels=task.num_labels, vocab_size=len(tokenizer))
    save_model(model, tokenizer, tmp_path)
    again = open_model(tmp_path, task=task)[0]
    batch = batch_of((9, 4), 9)
    batch["input_ids"] = batch["input_ids"] % len(tokenizer)
    assert again.shape == SHAPE
    assert (again.predict(batch) == model.predict(batch)).all()
    whole = make_model(SHAPE.with_tokens(1, 1, 1, 1), labels=task.num_labels, vocab_size=len(tokenizer))
    assert fingerprint(whole) != fingerprint(model)
    save_model(whole, tokenizer, tmp_path / "whole")
    assert "layer_tokens" not in json.loads((tmp_path / "whole" / "config.json").read_text())


def test_a_plain_checkpoint_of_the_family_has_no_place_for_it(make_model):
    with pytest.raises(InputError, match=r"layer 0 passes on 0.8 of the tokens"):
        to_transformers(make_model(SHAPE))


def test_a_folder_whose_family_cannot_leave_tokens_out_is_refused(make_model, tmp_path):
    tokenizer = toy_tokenizer(toy_task("classification", train=8, validation=4, test=4))
    save_model(make_model(SHAPE, vocab_size=len(tokenizer)), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changed = config | {"family": "deberta-v2", "pos_att_type": ["c2p"]}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"config.json has layer_tokens, but deberta-v2 scores the distances"):
        open_model(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([0.5, 0.5, 0.0, 0.5], "numbers above 0"), ([0.5, 2, 1, 1], "at most 1"), ([0.5], "describes no shape")],
)
def test_a_damaged_schedule_is_one_clear_error(make_model, tmp_path, tokens, message):
    tokenizer = toy_tokenizer(toy_task("classification", train=8, validation=4, test=4))
    save_model(make_model(SHAPE, vocab_size=len(tokenizer)), tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_tokens": tokens}))
    with pytest.raises(InputError, match=message):
        open_model(tmp_path)
