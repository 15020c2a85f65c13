"""Answer texts with a saved model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.errors import InputError


def answer(model: str | Path, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Answers of a fine-tuned model: a dictionary a text, with ``answer`` and the ``scores`` behind it.

    Classification: the label and every label's probability. Several labels: those with probability over one half.
    Regression: the number. Tokens: a label for every word.
    """
    from limbeck.core.outputs import require_finite_logits
    from limbeck.data.batches import Encoded, predict
    from limbeck.model.files import open_model, peek, peek_outputs

    described, spec = peek(model), peek_outputs(model)
    if not spec.trained:
        raise InputError(f"'{model}' has no trained head: {spec.untrained}; fine-tune it first")
    opened, tokenizer = open_model(model)
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(pairs)} second texts; give one --pair for each text")
    if not texts:
        return []
    words = spec.per_token
    given: list[Any] = [text.split() for text in texts] if words else list(texts)
    made = tokenizer(given, pairs, truncation=True, max_length=described["max_length"], is_split_into_words=words)
    encoded = Encoded(
        made["input_ids"], made.get("token_type_ids"), [0] * len(texts), tokenizer.pad_token_id or 0, "regression"
    )
    if words:
        encoded = Encoded(
            encoded.input_ids,
            encoded.token_type_ids,
            [[0] * len(ids) for ids in made["input_ids"]],
            encoded.pad_id,
            "tokens",
        )
    found: list[dict[str, Any]] = []
    answers = predict(opened, encoded)
    require_finite_logits(answers, texts, f"'{model}'")
    for index, (text, logits) in enumerate(zip(texts, answers, strict=True)):
        if words:
            first = {word: place for place, word in reversed(list(enumerate(made.word_ids(index)))) if word is not None}
            logits = logits[[first[word] for word in sorted(first)]]
        found.append({"text": text, **spec.decode(logits)})
    return found
