"""A card is read whole and unchanged, or refused."""

from __future__ import annotations

import json

import pytest

from limbeck.engine.store.card import CARD, read_card, sealed

CONTENT = {"format": 2, "seed": 3, "task": "0123", "files": {"config.json": "ab", "onnx/model.onnx": "cd"}}


def test_a_card_comes_back(tmp_path):
    (tmp_path / CARD).write_text(json.dumps(sealed(CONTENT)))
    card = read_card(tmp_path)
    assert (card.task, card.digests, card.sizes) == ("0123", CONTENT["files"], {})
    assert card.content == sealed(CONTENT) == sealed(card.content)


def test_every_changed_bit_is_noticed(tmp_path):
    blob = json.dumps(sealed(CONTENT)).encode()
    for position in range(len(blob)):
        (tmp_path / CARD).write_bytes(blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :])
        with pytest.raises(ValueError, match=r"."):
            read_card(tmp_path)


@pytest.mark.parametrize(
    "change", [{"files": {"/etc/passwd": "ab"}}, {"files": {"../x": "ab"}}, {"files": []}, {"task": ".."}, {"task": 7}]
)
def test_names_stay_inside(tmp_path, change):
    (tmp_path / CARD).write_text(json.dumps(sealed(CONTENT | change)))
    with pytest.raises(ValueError, match="should"):
        read_card(tmp_path)


def test_a_card_of_sizes_becomes_one_of_digests(tmp_path):
    (tmp_path / CARD).write_text(json.dumps({"format": 1, "task": "0123", "files": {"config.json": 7}}))
    card = read_card(tmp_path)
    assert card.size_problem(tmp_path) == "config.json is missing"
    (tmp_path / "config.json").write_text("{}")
    assert card.size_problem(tmp_path) == "config.json has 2 bytes instead of 7"
    (tmp_path / "config.json").write_text("{}     ")
    assert card.size_problem(tmp_path) is None
    renewed = card.with_digests("abc", {"config.json": "ab", "extra": "cd"})
    assert renewed.digests == {"config.json": "ab"}
    (tmp_path / CARD).write_text(json.dumps(renewed.content))
    assert read_card(tmp_path) == renewed
