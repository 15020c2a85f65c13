import numpy as np
import pytest
import torch

from limbeck.core.metrics import IGNORED
from limbeck.data.corpus.masking import Masking
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError

MASK, SPECIAL, VOCABULARY = 4, frozenset(range(5)), 400
HIDE = Masking(MASK, SPECIAL, VOCABULARY, seed=3)


def texts(rows=300, length=60):
    ids = np.random.default_rng(0).integers(5, VOCABULARY, (rows, length))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids


def batch_of(ids, indices, longest=None):
    width = longest or max(map(len, ids))
    padded = torch.zeros(len(ids), width, dtype=torch.long)
    for row, tokens in zip(padded, ids, strict=True):
        row[: len(tokens)] = torch.as_tensor(tokens)
    mask = (torch.arange(width)[None] < torch.tensor([[len(tokens)] for tokens in ids])).long()
    return {"input_ids": padded, "attention_mask": mask, "index": torch.tensor(indices)}


def test_fifteen_percent_are_hidden_and_most_of_them_behind_the_mask():
    ids = texts()
    pairs = [HIDE.hide(row, index, 0) for index, row in enumerate(ids)]
    seen, goal = (np.stack(part) for part in zip(*pairs, strict=True))
    hidden = goal != IGNORED
    assert set(hidden.sum(1)) == {round(0.15 * 58)}
    assert not hidden[:, [0, -1]].any()
    np.testing.assert_array_equal(goal[hidden], ids[hidden])
    np.testing.assert_array_equal(seen[~hidden], ids[~hidden])
    masked, unchanged = (seen[hidden] == MASK).mean(), (seen[hidden] == ids[hidden]).mean()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert unchanged == pytest.approx(0.1, abs=0.02)
    others = seen[hidden & (seen != MASK) & (seen != ids)]
    assert not set(others) & SPECIAL
    assert len(set(others)) > 100  # of the whole vocabulary
    share = hidden[:, 1:-1].mean(0)
    assert 0.08 < share.min() < share.max() < 0.22  # no place is favoured


def test_what_is_hidden_depends_on_seed_step_and_place_alone():
    ids = texts(6, 30)
    together, alone = HIDE(batch_of(ids, range(6)), 7), HIDE(batch_of(ids[4:5], [4], longest=40), 7)
    for name in ("input_ids", "hidden_tokens"):
        torch.testing.assert_close(together[name][4], alone[name][0, :30])
    again = Masking(MASK, SPECIAL, VOCABULARY, seed=3)(batch_of(ids, range(6)), 7)
    assert all(torch.equal(again[name], together[name]) for name in again)
    others = [HIDE(batch_of(ids, range(6)), 8), Masking(MASK, SPECIAL, VOCABULARY)(batch_of(ids, range(6)), 7)]
    others.append(HIDE(batch_of(ids, range(1, 7)), 7))
    assert not any(torch.equal(other["hidden_tokens"], together["hidden_tokens"]) for other in others)


def test_padding_and_texts_without_words_are_left_alone_and_short_texts_are_not():
    batch = batch_of([[2, 9, 3], [2, 3], [2, *range(5, 25), 3]], [0, 1, 2])
    before = {name: tensor.clone() for name, tensor in batch.items()}
    masked_batch = HIDE(batch, 0)
    hidden = masked_batch["hidden_tokens"] != IGNORED
    assert hidden.sum(1).tolist() == [1, 0, 3]
    assert not hidden[before["attention_mask"] == 0].any()
    assert all(torch.equal(batch[name], before[name]) for name in batch)


def test_the_tokenizer_says_what_is_special():
    tokenizer = toy_tokenizer(toy_task(train=8))
    masking = Masking.of(tokenizer, 0.2, 1)
    assert (masking.mask, masking.share, masking.seed, masking.vocabulary) == (
        tokenizer.mask_token_id,
        0.2,
        1,
        len(tokenizer),
    )
    assert masking.special == set(tokenizer.all_special_ids)
    tokenizer.mask_token = None
    with pytest.raises(InputError, match="no mask token"):
        Masking.of(tokenizer, 0.15, 0)
