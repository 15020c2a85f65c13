from dataclasses import replace

import family_models as families
import pytest
import torch

from limbeck.core.shape import Shape
from limbeck.model.family_table import FAMILIES
from limbeck.model.pruning.channels import observe
from limbeck.model.pruning.hidden_width import narrow_hidden
from limbeck.model.pruning.read_points import read_points
from limbeck.model.pruning.rotation import absorb_norms, is_rotatable, principal_basis, rotate
from limbeck.model.pruning.subnetwork import extract, writers

ROTATED = ("megatron-bert", "xlm-roberta-xl", "modernbert")
"""Families whose hidden states may be given in another basis; RoBERTa-PreLayerNorm normalizes a sum of embeddings."""
MODERN = {
    "family": "modernbert", "norm_first": True, "absolute_positions": False, "token_types": 0, "gated": True,
    "unnormed_layers": [0], "rotary_theta": [160_000.0, 10_000.0], "pooler_norm": True,
    **dict.fromkeys(("norm_bias", "attention_bias", "ffn_bias", "pooler_bias"), False),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_allow_it(family):
    assert is_rotatable(families.ours(f"{family}-small")) == (family in ROTATED)


def test_a_norm_with_a_bias_needs_readers_with_one():
    """A ModernBERT with biases of norms, but none of attention."""
    assert not is_rotatable(families.ours("modernbert-odd"))


@pytest.mark.parametrize("kind", ["text", "tokens"])
@pytest.mark.parametrize("case", [case for case in families.CASES if case.rpartition("-")[0] in ROTATED])
def test_turned_alone_it_answers_as_before(case, kind):
    """With the final norm, a first layer without norm, rotary positions, local layers, biases and means."""
    model = families.ours(case, kind)
    if not is_rotatable(model):
        return
    batches = list(families.batches(model.style.pad_token_id, types=model.style.token_types > 1))
    with torch.no_grad():
        expected = [families.defined(model, batch, model.run(batch)[0]) for batch in batches]
    absorb_norms(model)
    hidden = model.shape.hidden
    basis = principal_basis(observe(model, batches[:1], read_points(model)).grams, hidden)
    before = model.encoder.embeddings.word.weight.clone()
    rotate(model, basis)
    assert not torch.allclose(before, model.encoder.embeddings.word.weight, atol=0.1)
    rotated = extract(model, model.shape)  # as the configuration has it, too
    for batch, logits in zip(batches, expected, strict=True):
        with torch.no_grad():
            defined = families.defined(rotated, batch, rotated.run(batch)[0])
        torch.testing.assert_close(defined, logits, rtol=1e-3, atol=2e-4)


def grams(hidden, points=3):
    rows = torch.randn(points, 50, hidden + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [x.T @ x for x in rows]


@pytest.mark.parametrize("width", [2, 5, 12])
def test_a_basis_is_orthogonal_and_keeps_the_all_ones_direction(width):
    basis = principal_basis(grams(12), width)
    torch.testing.assert_close(basis.T @ basis, torch.eye(12, dtype=torch.float64))
    equal = basis[:, :width].sum(0).new_ones(12) @ basis
    torch.testing.assert_close(equal[:width], torch.full((width,), (12 / width) ** 0.5, dtype=torch.float64))
    torch.testing.assert_close(equal[width:], torch.zeros(12 - width, dtype=torch.float64))


def test_what_stays_is_what_varies_most():
    """Of rows whose mean over channels is 0, as norms give them: the leading singular vectors."""
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = rows * torch.arange(1.0, 7.0, dtype=torch.float64)
    rows = rows - rows.mean(1, keepdim=True)
    ones = torch.cat([rows, torch.ones(200, 1, dtype=torch.float64)], 1)
    leading = principal_basis([ones.T @ ones], 4)[:, :4]
    directions = torch.linalg.svd(rows).Vh[:3]
    torch.testing.assert_close(rows @ leading @ leading.T, rows @ directions.T @ directions)


def test_directions_that_nothing_is_written_to_are_cut_exactly(make_model, make_batch):
    shape = Shape.uniform(layers=3, hidden=32, heads=4, ffn=24)
    model, batches = make_model(shape, **MODERN), [make_batch(rows=16, seed=seed) for seed in range(4)]
    absorb_norms(model)
    generator = torch.Generator().manual_seed(0)
    written = torch.linalg.qr(torch.randn(32, 10, generator=generator)).Q
    written = written - written.mean(0)
    projection = written @ torch.linalg.pinv(written)
    with torch.no_grad():
        model.encoder.embeddings.word.weight.copy_(model.encoder.embeddings.word.weight @ projection)
        for layer in model.encoder.layers:
            for part in writers(layer):
                part.weight.copy_(projection @ part.weight)
        expected = [model.run(batch, taps=("hidden",)) for batch in batches]
    narrow = narrow_hidden(model, lambda: batches, 16, reconstruct=False)
    assert narrow.shape == replace(shape, hidden=16)
    for batch, (_, taps) in zip(batches, expected, strict=True):
        with torch.no_grad():
            narrow_taps = narrow.run(batch, taps=("hidden",))[1]
        for states, reference in zip(narrow_taps["hidden"], taps["hidden"], strict=True):
            lengths = (states.square().sum(-1), reference.square().sum(-1))  # no direction is lost
            torch.testing.assert_close(*lengths, rtol=1e-3, atol=1e-3)
