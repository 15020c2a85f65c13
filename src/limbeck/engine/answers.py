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
    import numpy as np

    from limbeck.data.batches import Encoded, predict
    from limbeck.model.files import open_model, peek

    described = peek(model)
    opened, tokenizer = open_model(model)
    labels, config = described["labels"], _config(opened)
    if not labels and config.get("problem_type") != "regression":
        raise InputError(f"'{model}' has no trained head; fine-tune it first")
    if pairs is not None and len(pairs) != len(texts):
        raise InputError(f"{len(texts)} texts but {len(pairs)} second texts; give one --pair for each text")
    if not texts:
        return []
    words = "TokenClassification" in str(config.get("architectures"))
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
    for index, (text, logits) in enumerate(zip(texts, predict(opened, encoded), strict=True)):
        if words:
            first = {word: place for place, word in reversed(list(enumerate(made.word_ids(index)))) if word is not None}
            tags = [labels[int(np.argmax(logits[first[word]]))] for word in sorted(first)]
            found.append({"text": text, "answer": " ".join(tags), "labels": tags})
            continue
        found.append({"text": text, **_one(logits, labels, str(config.get("problem_type")))})
    return found


def _config(model: Any) -> dict[str, Any]:
    return dict(model.config if isinstance(model.config, dict) else model.config.to_dict())


def _one(logits: Any, labels: Sequence[str], problem: str) -> dict[str, Any]:
    import numpy as np

    if problem == "regression":
        return {"answer": float(logits[0]), "scores": {}}
    if problem == "multi_label_classification":
        chances = 1.0 / (1.0 + np.exp(-logits))
        said = [label for label, chance in zip(labels, chances, strict=True) if chance > 0.5]
        return {"answer": ", ".join(said), "scores": dict(zip(labels, map(float, chances), strict=True))}
    powers = np.exp(logits - logits.max())
    chances = powers / powers.sum()
    return {
        "answer": labels[int(np.argmax(chances))],
        "scores": dict(zip(labels, map(float, chances), strict=True)),
    }
