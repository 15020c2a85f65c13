"""Toy tasks of a few dozen words: a model of 2 layers and width 32 learns each of them in seconds.

They need neither network nor files, so tests, smoke runs and documentation use them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from limbeck.core.kinds import KINDS, Kind
from limbeck.core.task import Split, Task, texts_of
from limbeck.data.requests import gather
from limbeck.data.tokenizer_training import SPECIAL_TOKENS, with_special_tokens
from limbeck.errors import InputError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FILLERS = ("the", "a", "one", "this", "that", "very", "quite", "and", "of", "with", "so", "film")
MOODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "sad": ("gloomy", "bleak", "tearful", "gray"),
        "happy": ("sunny", "bright", "cheerful", "merry"),
        "angry": ("furious", "bitter", "hostile", "fierce"),
    }
)
PLACES = ("paris", "oslo", "lima", "cairo")
PEOPLE = ("anna", "ben", "carla", "dan")


def _filled(rng: random.Random, words: tuple[str, ...], least: int = 2, most: int = 10) -> list[str]:
    """Mix words with fillers, in random order."""
    sentence = [*words, *rng.choices(FILLERS, k=rng.randint(least, most))]
    rng.shuffle(sentence)
    return sentence


def _mood(rng: random.Random) -> tuple[str, None, int]:
    """Generate a text whose label is its mood, given by one or two words."""
    label = rng.randrange(len(MOODS))
    words = rng.choices(list(MOODS.values())[label], k=rng.randint(1, 2))
    return " ".join(_filled(rng, tuple(words))), None, label


def _agreement(rng: random.Random) -> tuple[str, str, int]:
    """Generate a pair whose label is whether the second text is happy; the first text is a distractor."""
    label, other = rng.randrange(2), rng.randrange(2)
    words = list(MOODS.values())
    first, second = (" ".join(_filled(rng, (rng.choice(words[mood]),), 1, 5)) for mood in (other, label))
    return first, second, label


def _several(rng: random.Random) -> tuple[str, None, tuple[int, ...]]:
    """Generate a text that is sad, happy, both or neither."""
    label = tuple(int(rng.random() < 0.4) for _ in range(2))
    words = tuple(rng.choice(MOODS[mood]) for mood, present in zip(("sad", "happy"), label, strict=True) if present)
    return " ".join(_filled(rng, words * 2, 1, 4)), None, label


def _balance(rng: random.Random) -> tuple[str, None, float]:
    """Generate a text whose target is how happy it is: happy words count up, sad ones down."""
    happy, sad = rng.randint(0, 3), rng.randint(0, 3)
    words = (*rng.choices(MOODS["happy"], k=happy), *rng.choices(MOODS["sad"], k=sad))
    return " ".join(_filled(rng, words, 6 - happy - sad, 8 - happy - sad)), None, (happy - sad) / 2


def _alike(rng: random.Random) -> tuple[str, str, float]:
    """Generate two texts with a score of how alike their moods are."""
    moods = list(MOODS.values())
    first, second = rng.randrange(len(moods)), rng.randrange(len(moods))
    a, b = (" ".join(_filled(rng, tuple(rng.choices(moods[mood], k=2)), 1, 5)) for mood in (first, second))
    return a, b, 1 - abs(first - second) / 2


def _tags(rng: random.Random) -> tuple[tuple[str, ...], None, tuple[int, ...]]:
    """Generate words, each a place, a person, or neither."""
    words = _filled(rng, (rng.choice(PLACES), rng.choice(PEOPLE)))
    return tuple(words), None, tuple(2 if word in PLACES else 1 if word in PEOPLE else 0 for word in words)


def _entities(rng: random.Random) -> tuple[tuple[str, ...], None, tuple[int, ...]]:
    """Generate words with people, of one word or two, and places."""
    fillers = rng.choices(FILLERS, k=rng.randint(2, 8))
    parts: list[list[tuple[str, int]]] = [[(word, 0)] for word in fillers]
    parts += [[(word, 1 + bool(index)) for index, word in enumerate(rng.choices(PEOPLE, k=rng.randint(1, 2)))]]
    parts += [[(rng.choice(PLACES), 3)]]
    rng.shuffle(parts)
    words, tags = zip(*(pair for part in parts for pair in part), strict=True)
    return words, None, tags


def _relevance(rng: random.Random) -> tuple[str, str, float]:
    """Generate a query for a mood and a text, which is as relevant as it has words of that mood."""
    moods = list(MOODS)
    wanted, other = rng.sample(moods, 2)
    count = rng.randint(0, 2)
    words = (*rng.sample(MOODS[wanted], count), *rng.sample(MOODS[other], 2 - count))
    return f"a {wanted} film", " ".join(_filled(rng, words, 2, 8)), float(count)


Row = Callable[[random.Random], tuple[Any, Any, Any]]
#: the kind of the task, its label names, and the function that generates a row
TOYS: Mapping[str, tuple[Kind, tuple[str, ...], Row]] = MappingProxyType(
    {
        "classification": ("classification", tuple(MOODS), _mood),
        "pairs": ("classification", ("sad", "happy"), _agreement),
        "multilabel": ("multilabel", ("sad", "happy"), _several),
        "regression": ("regression", (), _balance),
        "embedding": ("embedding", (), _alike),
        "rerank": ("rerank", (), _relevance),
        "tokens": ("tokens", ("O", "person", "place"), _tags),
        "entities": ("tokens", ("O", "B-person", "I-person", "B-place"), _entities),
    }
)


def toy_task(
    kind: str = "classification", *, train: int = 512, validation: int = 128, test: int = 128, seed: int = 0
) -> Task:
    """Generate a toy task; the same arguments always give the same one.

    Args:
        kind: A key of ``TOYS``; ``pairs`` is a classification of pairs of texts.
        train: Training rows.
        validation: Validation rows.
        test: Test rows.
        seed: Seed of the rows.

    >>> task = toy_task("tokens", train=8)
    >>> len(task.split("train")), task.label_names
    (8, ('O', 'person', 'place'))
    """
    if kind not in TOYS:
        raise InputError(f"there is no toy task '{kind}'; {nearest(kind, TOYS)}")
    task_kind, label_names, make = TOYS[kind]
    splits = {}
    for name, count in (("train", train), ("validation", validation), ("test", test)):
        rng = random.Random(f"{kind}/{name}/{seed}")
        texts, pairs, labels = zip(*(make(rng) for _ in range(count)), strict=True)
        splits[name] = Split(texts, labels, pairs if pairs[0] is not None else None)
        if KINDS[task_kind].grouped:
            splits[name] = gather(splits[name], name, [])
    metric = KINDS[task_kind].usual_metric(label_names)
    return Task(f"toy-{kind}", task_kind, splits, label_names, metric, max_length=32)


def toy_tokenizer(task: Task) -> PreTrainedTokenizerFast:
    """Build a tokenizer of the task's own words, with BERT's special tokens."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = sorted({word for split in task.splits.values() for text in texts_of(split) for word in text.split()})
    ids = {word: index for index, word in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return with_special_tokens(tokenizer, task.max_length)
