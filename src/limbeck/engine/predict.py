"""Answer texts with a saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.decision import Decision, is_number
from limbeck.core.kinds import find
from limbeck.core.logits import require_finite_logits
from limbeck.core.outputs import OutputSpec, output
from limbeck.core.requests import requests_of
from limbeck.core.retrieval import order
from limbeck.core.search_score import SearchScore
from limbeck.core.sentence_embedding import QUERY_PROMPTS
from limbeck.data.encoding import TaskTokenizer, TextEncoding
from limbeck.engine.description import Description, Request, read_description
from limbeck.errors import InputError, nearest, shown
from limbeck.measure.requests import served_batches

if TYPE_CHECKING:
    import numpy as np

    from limbeck.data.batching import Encoded, Predictor
    from limbeck.engine.word_answers import Aggregation


def answer(
    model: str | Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    aggregation: Aggregation = "first",
    prompt_name: str | None = None,
) -> list[dict[str, Any]]:
    """Answer texts with a fine-tuned model or an artefact.

    Args:
        model: Folder or name of the model.
        texts: Texts to answer; for a model that labels words, white space separates words. One text may stand for all
            second texts, as the query of a reranker.
        pairs: Second texts, for a model of pairs; the documents of a reranker.
        aggregation: How entities take their tags from tokens, as ``aggregation_strategy`` in transformers: 'first'
            gives all tokens of a word the tag of its first, 'simple' gives each token its own.
        prompt_name: Prompt of an embedding model to put before each text, as in sentence-transformers, such as 'query';
            its default prompt unless given.

    Returns:
        A dictionary for each text, with ``answer`` and the ``scores`` behind it. Classification: the label and every
        label's probability. Several labels: those with probability over one half. Regression: the number. Tokens:
        ``labels``, one for every word; words that the model did not see (cut off, or without a token) have the label
        'O', or the first one, and ``unseen`` has their positions, from 0. Where the labels mark entities (B-PER, I-PER,
        O), nothing is cut off, and ``entities`` has ``type``, ``text``, ``start``, ``end`` and ``score`` of each. A
        reranker: the score of each document, and its ``rank`` among those of the same query, from 1.

    Raises:
        InputError: The model has no trained head or no such prompt, or the number of second texts differs from that of
            texts.
    """
    from limbeck.data.batching import Encoded, encode_apart, predict
    from limbeck.model.checkpoints import open_model, peek, peek_outputs
    from limbeck.model.location import check_vectors

    described, spec = peek(model), peek_outputs(model)
    if not spec.trained:
        check_vectors(model)
        raise InputError(f"'{model}' has no trained head: {spec.untrained}; fine-tune it first")
    texts = list(texts) * len(pairs) if pairs and len(texts) == 1 else texts
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(pairs)} second texts; give one --pair for each text")
    description = read_description(model)
    prompt = None if prompt_name is None else _named(prompt_name, described["prompts"], model)
    decision = _decision_of(model, description, spec)
    _check_pairs(model, _takes_pairs(description, spec), given=pairs is not None)
    opened, tokenizer = open_model(model)
    if not texts:
        return []
    source = f"'{model}'"
    usual = _encoding_of(model, description, tokenizer, described["max_length"], words=spec.per_token)
    encoding = usual if prompt is None else replace(usual, prompt=prompt)
    if spec.per_token:
        return _of_words(opened, tokenizer, encoding, spec, texts, aggregation, source)
    if output(spec.kind).vectors:
        search = pairs is not None and prompt_name in QUERY_PROMPTS  # then second texts are documents
        labels = [SearchScore()] * len(texts) if search else []
        inputs = encode_apart(usual if search else encoding, tokenizer, list(texts), pairs, labels, spec.kind)
        return _vectors(spec, texts, pairs, list(predict(opened, inputs)), source)
    encodings = encoding.encode(tokenizer, texts, pairs)
    ids = encodings["input_ids"]
    inputs = Encoded(ids, encodings.get("token_type_ids"), (), tokenizer.pad_token_id or 0, spec.kind)
    if output(spec.kind).grouped and pairs is not None:
        request = description.request if description is not None else None
        return _ranked(opened, inputs, spec, texts, pairs, request)
    answers = predict(opened, inputs)
    require_finite_logits(answers, texts, source)
    seconds = [{} for _ in texts] if pairs is None else [{"pair": pair} for pair in pairs]
    rows = zip(texts, seconds, answers, strict=True)
    return [{"text": text, **second, **spec.decode(logits, decision)} for text, second, logits in rows]


def _named(name: str, prompts: Mapping[str, str], model: str | Path) -> str:
    """Return the prompt of that name."""
    if name not in prompts:
        raise InputError(
            f"prompt_name: '{model}' has no prompt '{name}'; {nearest(name, prompts) if prompts else 'it has none'}"
        )
    return prompts[name]


def _of_words(
    model: Predictor,
    tokenizer: TaskTokenizer,
    encoding: TextEncoding,
    spec: OutputSpec,
    texts: Sequence[str],
    aggregation: Aggregation,
    source: str,
) -> list[dict[str, Any]]:
    """Return the labels of the words of each text, and its entities."""
    from limbeck.data.batching import predict
    from limbeck.engine.word_answers import answer_words

    def answered(encoded: Encoded) -> Sequence[np.ndarray]:
        return list(predict(model, encoded))

    return answer_words(answered, tokenizer, encoding, spec, texts, aggregation, source)


def _ranked(
    model: Predictor,
    inputs: Encoded,
    spec: OutputSpec,
    texts: Sequence[str],
    pairs: Sequence[str],
    request: Request | None,
) -> list[dict[str, Any]]:
    """Return the score of each document and its rank for its query, answered in sub-batches as they were measured."""
    from limbeck.data.batching import predict

    numbers = {query: index for index, query in enumerate(dict.fromkeys(texts))}
    encoded = replace(inputs, labels=[(numbers[query], 0.0, 0.0) for query in texts])
    batches = None if request is None else served_batches(encoded, request.batch)
    logits = predict(model, encoded, None, batches)
    require_finite_logits(logits, texts, "the model")
    ranks = [0] * len(texts)
    for rows in requests_of(encoded.labels):
        best = order([float(logits[row][0]) for row in rows])
        for rank, index in enumerate(best.tolist(), start=1):
            ranks[rows[index]] = rank
    answers = zip(texts, pairs, logits, ranks, strict=True)
    return [{"text": text, "pair": pair, **spec.decode(row), "rank": rank} for text, pair, row, rank in answers]


def _vectors(
    spec: OutputSpec, texts: Sequence[str], pairs: Sequence[str] | None, rows: Sequence[Any], source: str
) -> list[dict[str, Any]]:
    """Return the vector of each text, or the cosine of the vectors of each pair."""
    require_finite_logits(rows, texts, source)
    if pairs is None:
        return [{"text": text, **spec.decode(row)} for text, row in zip(texts, rows, strict=True)]
    cosines = find(spec.kind).decode(rows)
    answers = zip(texts, pairs, cosines, strict=True)
    return [{"text": text, "pair": pair, "answer": float(value), "scores": {}} for text, pair, value in answers]


def _takes_pairs(description: Description | None, spec: OutputSpec) -> bool | None:
    """Return whether a model takes pairs of texts; None where it takes both, or does not say."""
    if spec.per_token:
        return False
    if output(spec.kind).vectors or description is None:
        return None
    return description.pair


def _check_pairs(model: str | Path, takes_pairs: bool | None, *, given: bool) -> None:
    """Refuse second texts for a model of single texts, and their absence for a model of pairs.

    Only an artefact says which it is. A checkpoint does not (cross-encoders have the configuration of classifiers), so
    it answers both, as in transformers.

    Args:
        model: Folder or name of the model.
        takes_pairs: Whether it takes pairs; None where it does not say.
        given: Whether there are second texts.
    """
    if given and takes_pairs is False:
        raise InputError(f"'{model}' takes single texts; leave --pair out")
    if takes_pairs is True and not given:
        raise InputError(f"'{model}' takes pairs of texts; give the second text of each with --pair")


def _decision_of(model: str | Path, description: Description | None, spec: OutputSpec) -> Decision | None:
    """Return the thresholds and the temperature of an artefact, after a check that they are of its labels.

    Args:
        model: Folder or name of the model.
        description: What an artefact says of itself.
        spec: Meaning of the model's outputs.
    """
    if description is None or description.decision is None:
        return None
    names = description.decision.thresholds
    if output(spec.kind).numeric:
        wrong = [name for name in names if not is_number(name)]
        expected = "the numbers where bands begin"
    else:
        wrong = [name for name in names if name not in spec.labels]
        expected = "labels of the model"
    if wrong:
        raise InputError(f"'{model}': limbeck.json has a threshold of {shown(wrong[0])}; thresholds are of {expected}")
    return description.decision


def _encoding_of(
    model: str | Path, description: Description | None, tokenizer: TaskTokenizer, positions: int, *, words: bool
) -> TextEncoding:
    """Return how a saved model's texts become ids; an artefact describes it.

    Args:
        model: Folder or name of the model.
        description: What an artefact says of itself; None for other folders, whose texts are cut at ``positions``.
        tokenizer: Its tokenizer.
        positions: Tokens that the model has positions for.
        words: Whether it labels words.
    """
    if description is None:
        return TextEncoding.of(tokenizer, positions, words=words)
    encoding = description.encoding or TextEncoding.of(tokenizer, description.max_length, words=words)
    if encoding.max_length > positions:
        raise InputError(f"'{model}': limbeck.json has texts of {encoding.max_length} tokens; the model, {positions}")
    if encoding.words != words:
        answered = "every word" if words else "whole texts"
        raise InputError(f"'{model}': limbeck.json has words: {encoding.words}, and the model labels {answered}")
    return encoding
