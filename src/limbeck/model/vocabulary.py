"""A tokenizer with fewer tokens, and the word embeddings of its model with as many rows.

What stays is what is asked for, special tokens, single letters and bytes (so that words of other tokens are spelled and
not unknown), and what the kind of tokenizer needs to read kept tokens as it did:

* WordPiece takes the longest piece that fits, WordLevel the word: nothing more is needed.
* BPE joins pieces in the order of its merges: of every kept token all merges that make it, and their parts likewise.
* Unigram takes the most likely pieces; its price of an unknown letter depends on the least likely piece, which stays.

So a text whose tokens are all kept is read in the same tokens: what lost to them before loses still, or is gone. (But
WordPiece may now spell a word that was unknown, where longer pieces hold a letter that is no piece by itself.) Tokens
keep their order.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.shape import Shape
from limbeck.core.tokenizer import note_settings
from limbeck.errors import UnsupportedModel, nearest
from limbeck.model._transformers import quiet

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
BYTE = re.compile("<0x[0-9A-F]{2}>")
WORDS = "encoder.embeddings.word.weight"


def trim(model: Any, tokenizer: Any, used: Iterable[int]) -> tuple[Any, Any, list[int]]:
    """Model and tokenizer with the ``used`` tokens and what must stay beside them; and the old ids of these, sorted.

    Texts whose tokens are all kept get the same logits, bit by bit. Weights are shared with ``model``, but for the word
    embeddings.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    style = model.encoder.style
    named = {*tokenizer.all_special_ids, *_ids_of(model.config).values()}
    if style.position_offset is not None:  # positions are counted from behind the id of padding, so that has to stay
        named |= set(range(style.pad_token_id))
    kept = needed(state, {*used, *named})
    return _with_rows(model, kept), _reopened(tokenizer, trimmed(state, kept)), kept


def speaking(model: Any, known: Mapping[str, int], words: Mapping[str, int]) -> Any | None:
    """The model as it reads the ids of a vocabulary whose ``words`` are all ``known`` to it; None if some are not.

    So a teacher reads the tokens of a student that has fewer.
    """
    if not words.keys() <= known.keys() or sorted(words.values()) != list(range(len(words))):
        return None
    return _with_rows(model, [known[token] for token in sorted(words, key=words.__getitem__)])


def needed(state: Mapping[str, Any], used: Iterable[int]) -> list[int]:
    """Ids of the ``used`` tokens and of what must stay beside them, sorted; ``state`` is what tokenizer.json holds."""
    about = state["model"]
    if about.get("type") not in KINDS:
        raise UnsupportedModel(f"the tokenizer is a {about.get('type')}; tokens can be taken out of {', '.join(KINDS)}")
    ids = _vocabulary(about)
    kept = {*used, *(holder[key] for holder, key in _places(state))}
    kept |= {place for token, place in ids.items() if _is_letter(token, about)}
    if about.get("unk_token") in ids:
        kept.add(ids[about["unk_token"]])
    if about["type"] == "Unigram":
        kept.add(min(range(len(ids)), key=lambda place: about["vocab"][place][1]))
    if about["type"] == "BPE":
        kept |= _parts(about, kept)
    return sorted(kept & {*ids.values(), *(token["id"] for token in state["added_tokens"])})


def trimmed(state: Mapping[str, Any], kept: Iterable[int]) -> dict[str, Any]:
    """What tokenizer.json holds, with the kept tokens alone, numbered from 0 in their old order."""
    new = {old: place for place, old in enumerate(kept)}
    made: dict[str, Any] = copy.deepcopy(dict(state))
    for holder, key in _places(made):
        holder[key] = new.get(holder[key], holder[key])
    about = made["model"]
    if about["type"] == "Unigram":
        about["vocab"] = [row for place, row in enumerate(about["vocab"]) if place in new]
        return made
    if about["type"] == "BPE":
        about["merges"] = [pair for pair in about["merges"] if about["vocab"][_joined(pair, about)] in new]
    pairs = sorted((new[place], token) for token, place in about["vocab"].items() if place in new)
    about["vocab"] = {token: place for place, token in pairs}
    return made


def _vocabulary(about: Mapping[str, Any]) -> dict[str, int]:
    """Ids of the tokens of a tokenizer's model; added tokens may come on top."""
    if about["type"] == "Unigram":
        return {token: place for place, (token, _) in enumerate(about["vocab"])}
    return dict(about["vocab"])


def _is_letter(token: str, about: Mapping[str, Any]) -> bool:
    """Whether a token is a single character, inside a word or at its end too, or a byte."""
    bare = token.removeprefix(about.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(about.get("end_of_word_suffix") or "")
    return len(token) == 1 or len(bare) == 1 or BYTE.fullmatch(token) is not None


def _joined(pair: Iterable[str], about: Mapping[str, Any]) -> str:
    """What a merge of BPE makes."""
    left, right = pair
    return left + right.removeprefix(about.get("continuing_subword_prefix") or "")


def _parts(about: Mapping[str, Any], kept: Iterable[int]) -> set[int]:
    """Ids of the tokens that BPE passes on its way to the kept ones, whichever way it takes."""
    ids = about["vocab"]
    made_of: dict[int, list[int]] = defaultdict(list)
    for pair in about["merges"]:
        made_of[ids[_joined(pair, about)]] += (ids[part] for part in pair)
    found: set[int] = set()
    waiting = list(kept)
    while waiting:
        fresh = set(made_of[waiting.pop()]) - found
        found |= fresh
        waiting += fresh
    return found


def _places(state: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where a tokenizer names tokens by their ids, apart from its vocabulary: containers, and keys of them."""
    yield from ((token, "id") for token in state["added_tokens"])
    if state.get("padding") is not None:
        yield state["padding"], "pad_id"
    if state["model"].get("unk_id") is not None:
        yield state["model"], "unk_id"
    if state.get("post_processor") is not None:
        yield from _framing(state["post_processor"])


def _framing(part: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The same of what puts special tokens around a text."""
    kind = part["type"]
    if kind == "Sequence":
        for one in part["processors"]:
            yield from _framing(one)
    elif kind == "TemplateProcessing":
        for token in part["special_tokens"].values():
            yield from ((token["ids"], place) for place in range(len(token["ids"])))
    elif kind in ("BertProcessing", "RobertaProcessing"):
        yield from ((part[name], 1) for name in ("sep", "cls"))
    elif kind != "ByteLevel":
        known = ("Sequence", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel")
        raise UnsupportedModel(f"the tokenizer has a post-processor {kind}; {nearest(kind, known)}")


def _reopened(tokenizer: Any, state: Mapping[str, Any]) -> Any:
    """The tokenizer that tokenizer.json then describes, as it will come back wherever it is saved."""
    with tempfile.TemporaryDirectory(prefix="limbeck-") as folder, quiet():
        note_settings(tokenizer)
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
        made = type(tokenizer).from_pretrained(folder)
    made.name_or_path = tokenizer.name_or_path
    expected = _vocabulary(state["model"]) | {token["content"]: token["id"] for token in state["added_tokens"]}
    if made.get_vocab() != expected:  # its class builds it anew, and may know better
        raise UnsupportedModel(f"a {type(tokenizer).__name__} does not come back with fewer tokens than it had")
    return made


def _ids_of(config: Any) -> dict[str, int]:
    """The ids of special tokens that a configuration names."""
    return {name: value for name, value in vars(config).items() if name.endswith("_token_id") and type(value) is int}


def _with_rows(model: Any, kept: list[int]) -> Any:
    """The model with these rows of its word embeddings."""
    import torch

    from limbeck.model.pruning.slicing import write_shape

    shape: Shape = model.shape
    config = write_shape(copy.deepcopy(model.config), shape)
    new = {old: place for place, old in enumerate(kept)}
    config.vocab_size = len(kept)
    for name, value in _ids_of(config).items():
        setattr(config, name, new.get(value))
    with torch.device("meta"):
        small = type(model)(config)
    weights = model.state_dict()
    weights[WORDS] = weights[WORDS][torch.tensor(kept, device=weights[WORDS].device)]
    small.load_state_dict(weights, assign=True)
    small.encoder.shape = shape
    small.fresh_head = model.fresh_head
    return small.train(model.training)
