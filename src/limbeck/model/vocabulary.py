"""A tokenizer with fewer tokens, and the word embeddings of its model with as many rows.

Retained are the requested tokens, special tokens, single letters and bytes (so that words of other tokens are spelled
and not unknown), and whatever the tokenizer needs to split texts into retained tokens as before:

* WordPiece takes the longest piece that fits, WordLevel the word: nothing more is needed.
* BPE joins pieces in the order of its merges: for every retained token all merges that produce it, recursively.
* Unigram takes the most likely pieces; its cost of an unknown letter depends on the least likely piece, which stays.

So a text whose tokens are all retained is split into the same tokens. (But WordPiece may now spell a word that was
unknown, where longer pieces contain a letter that is no piece by itself.) Tokens keep their order.
"""

from __future__ import annotations

import copy
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from limbeck.core.shape import Shape
from limbeck.core.tokenizer import note_settings
from limbeck.errors import UnsupportedModel, nearest
from limbeck.model._transformers import quiet
from limbeck.storage.drafts import temporary_folder

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from limbeck.model.encoder import LimbeckForSequenceClassification

KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")
BYTE = re.compile("<0x[0-9A-F]{2}>")
WORDS = "encoder.embeddings.word.weight"


def trim(
    model: LimbeckForSequenceClassification, tokenizer: PreTrainedTokenizerBase, used: Iterable[int]
) -> tuple[LimbeckForSequenceClassification, PreTrainedTokenizerBase, list[int]]:
    """Remove tokens from a model and its tokenizer; texts of retained tokens get the same logits, bit by bit.

    Args:
        model: The model; the result shares its weights, apart from the word embeddings.
        tokenizer: Its tokenizer.
        used: Ids of the tokens to retain.

    Returns:
        The new model and tokenizer, and the old ids of the retained tokens, sorted.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    style = model.encoder.style
    named = {*tokenizer.all_special_ids, *_ids_of(model.config).values()}
    if style.position_offset is not None:  # positions start after the id of padding, which therefore has to stay
        named |= set(range(style.pad_token_id))
    retained = needed(state, {*used, *named})
    return _with_rows(model, retained), _reopened(tokenizer, trimmed(state, retained)), retained


def with_vocabulary(
    model: LimbeckForSequenceClassification, own: Mapping[str, int], target: Mapping[str, int]
) -> LimbeckForSequenceClassification | None:
    """Adapt a model to the ids of a smaller vocabulary, so that a teacher can read a student's tokens.

    Args:
        model: The model.
        own: Ids of the model's own tokens.
        target: Ids of the vocabulary to read.

    Returns:
        The adapted model; None if it lacks some of the tokens.
    """
    if not target.keys() <= own.keys() or sorted(target.values()) != list(range(len(target))):
        return None
    return _with_rows(model, [own[token] for token in sorted(target, key=target.__getitem__)])


def needed(state: Mapping[str, Any], used: Iterable[int]) -> list[int]:
    """Return the sorted ids of ``used`` tokens and of those they need; ``state`` is the content of tokenizer.json."""
    spec = state["model"]
    if spec.get("type") not in KINDS:
        raise UnsupportedModel(f"the tokenizer is a {spec.get('type')}; tokens can be taken out of {', '.join(KINDS)}")
    ids = _vocabulary(spec)
    retained = {*used, *(holder[key] for holder, key in _id_slots(state))}
    retained |= {index for token, index in ids.items() if _is_letter(token, spec)}
    if spec.get("unk_token") in ids:
        retained.add(ids[spec["unk_token"]])
    if spec["type"] == "Unigram":
        retained.add(min(range(len(ids)), key=lambda index: spec["vocab"][index][1]))
    if spec["type"] == "BPE":
        retained |= _parts(spec, retained)
    return sorted(retained & {*ids.values(), *(token["id"] for token in state["added_tokens"])})


def trimmed(state: Mapping[str, Any], retained: Iterable[int]) -> dict[str, Any]:
    """Return the content of tokenizer.json with the retained tokens alone, numbered from 0 in their old order."""
    new = {old: index for index, old in enumerate(retained)}
    result: dict[str, Any] = copy.deepcopy(dict(state))
    for holder, key in _id_slots(result):
        holder[key] = new.get(holder[key], holder[key])
    spec = result["model"]
    if spec["type"] == "Unigram":
        spec["vocab"] = [row for index, row in enumerate(spec["vocab"]) if index in new]
        return result
    if spec["type"] == "BPE":
        spec["merges"] = [pair for pair in spec["merges"] if spec["vocab"][_joined(pair, spec)] in new]
    pairs = sorted((new[index], token) for token, index in spec["vocab"].items() if index in new)
    spec["vocab"] = {token: index for index, token in pairs}
    return result


def _vocabulary(spec: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of the tokens of a tokenizer's model; added tokens may come on top."""
    if spec["type"] == "Unigram":
        return {token: index for index, (token, _) in enumerate(spec["vocab"])}
    return dict(spec["vocab"])


def _is_letter(token: str, spec: Mapping[str, Any]) -> bool:
    """Tell whether a token is a single character, inside a word or at its end too, or a byte."""
    bare = token.removeprefix(spec.get("continuing_subword_prefix") or "")
    bare = bare.removesuffix(spec.get("end_of_word_suffix") or "")
    return len(token) == 1 or len(bare) == 1 or BYTE.fullmatch(token) is not None


def _joined(pair: Iterable[str], spec: Mapping[str, Any]) -> str:
    """Return the token that a BPE merge produces."""
    left, right = pair
    return left + right.removeprefix(spec.get("continuing_subword_prefix") or "")


def _parts(spec: Mapping[str, Any], retained: Iterable[int]) -> set[int]:
    """Return the ids of all tokens from which BPE can merge the retained ones."""
    ids = spec["vocab"]
    made_of: dict[int, list[int]] = defaultdict(list)
    for pair in spec["merges"]:
        made_of[ids[_joined(pair, spec)]] += (ids[part] for part in pair)
    parts: set[int] = set()
    waiting = list(retained)
    while waiting:
        fresh = set(made_of[waiting.pop()]) - parts
        parts |= fresh
        waiting += fresh
    return parts


def _id_slots(state: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield where a tokenizer stores token ids, apart from its vocabulary: (container, key)."""
    yield from ((token, "id") for token in state["added_tokens"])
    if state.get("padding") is not None:
        yield state["padding"], "pad_id"
    if state["model"].get("unk_id") is not None:
        yield state["model"], "unk_id"
    if state.get("post_processor") is not None:
        yield from _framing(state["post_processor"])


def _framing(part: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the same for the post-processor, which adds special tokens around a text."""
    kind = part["type"]
    if kind == "Sequence":
        for processor in part["processors"]:
            yield from _framing(processor)
    elif kind == "TemplateProcessing":
        for token in part["special_tokens"].values():
            yield from ((token["ids"], index) for index in range(len(token["ids"])))
    elif kind in ("BertProcessing", "RobertaProcessing"):
        yield from ((part[name], 1) for name in ("sep", "cls"))
    elif kind != "ByteLevel":
        supported = ("Sequence", "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel")
        raise UnsupportedModel(f"the tokenizer has a post-processor {kind}; {nearest(kind, supported)}")


def _reopened(tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Build the tokenizer of a tokenizer.json by saving and opening it.

    Some classes build parts of it anew and with fixed ids; those become a plain ``PreTrainedTokenizerFast``.
    """
    from transformers import PreTrainedTokenizerFast

    with temporary_folder() as folder, quiet():
        note_settings(tokenizer)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
        for kind in (type(tokenizer), PreTrainedTokenizerFast):
            result: PreTrainedTokenizerBase = kind.from_pretrained(folder)
            if _is_tokenizer_of(result, state):
                result.name_or_path = tokenizer.name_or_path
                return result
    raise UnsupportedModel(f"a {type(tokenizer).__name__} does not come back with fewer tokens than it had")


def _is_tokenizer_of(tokenizer: PreTrainedTokenizerBase, state: Mapping[str, Any]) -> bool:
    """Tell whether a tokenizer has the tokens and the parts of a tokenizer.json."""
    tokens = _vocabulary(state["model"]) | {token["content"]: token["id"] for token in state["added_tokens"]}
    own = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    pairs = [(own[part], state[part]) for part in parts]
    settings = state["model"].keys() - {"vocab"}  # whose scores are rounded when they are read
    pairs += [(own["model"].get(name), state["model"][name]) for name in settings]
    return tokenizer.get_vocab() == tokens and all(seen == expected for seen, expected in pairs)


def _ids_of(config: PretrainedConfig) -> dict[str, int]:
    """Return the ids of the special tokens in a configuration."""
    return {name: value for name, value in vars(config).items() if name.endswith("_token_id") and type(value) is int}


def _with_rows(model: LimbeckForSequenceClassification, retained: list[int]) -> LimbeckForSequenceClassification:
    """Return the model with these rows of its word embeddings."""
    import torch

    from limbeck.model.pruning.slicing import write_shape

    shape: Shape = model.shape
    config = write_shape(copy.deepcopy(model.config), shape)
    new = {old: index for index, old in enumerate(retained)}
    config.vocab_size = len(retained)
    for name, value in _ids_of(config).items():
        setattr(config, name, new.get(value))
    with torch.device("meta"):
        small = type(model)(config)
    weights = model.state_dict()
    weights[WORDS] = weights[WORDS][torch.tensor(retained, device=weights[WORDS].device)]
    small.load_state_dict(weights, assign=True)
    small.encoder.shape = shape
    small.fresh_head = model.fresh_head
    small.train(model.training)
    return small
