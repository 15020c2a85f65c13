"""Augmentation as functions of words and chance: texts with words masked, swapped or replaced by candidates.

References: Tang et al., 2019, arXiv:1903.12136 (masks, parts of speech, n-grams); Jiao et al., 2020, arXiv:1909.10351,
Algorithm 1 (TinyBERT: candidates for every word). Differs: white space and punctuation around words stay as they are; a
row's samples depend on (seed, row) alone, so any process may draw them in any order; texts whose words carry labels
change word for word. Words are what stands between spaces and common punctuation marks, so languages that write without
spaces need texts split into words. Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol

from limbeck.data.corpus.documents import normal

_MARKS = re.escape("""!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~“”„«»‹›…–—¿¡。、，！？；：（）「」""")
_WORD = re.compile(rf"[^\s'’{_MARKS}]+(?:['’][^\s'’{_MARKS}]+)*|\S")

_FUNCTION_WORDS = """
    a an the this that these those some any each every either neither no none all both half such another other
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it its itself
    we us our ours ourselves they them their theirs themselves one ones oneself who whom whose which what whoever
    someone somebody something anyone anybody anything everyone everybody everything nobody nothing
    and or but nor so yet if unless because although though while whereas since until till whether than as
    in on at by for from to of off with within without into onto upon about above below under over between among
    through during before after against around across along behind beside besides beyond near toward towards per via
    up down out away back
    be am is are was were been being do does did doing done have has had having
    can could may might must shall should will would ought need dare used
    not never n't don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't cannot couldn't shouldn't
    haven't hasn't hadn't mustn't ain't i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll
    it's it'd it'll we're we've we'd we'll they're they've they'd they'll that's there's here's what's who's let's
    here there where when why how then now again once ever also too very just only even still already else rather quite
    more most less least much many few little own same several enough
    s t d ll m o re ve y ca wo
"""
STOP_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English words that carry grammar rather than meaning (negations among them): a replacement would break the text."""


def split_words(text: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Words, and what stands around them: a gap before each and one at the end. Given words stay as they are.

    >>> split_words("It isn't  bad.")
    (['It', "isn't", 'bad', '.'], ['', ' ', '  ', '', ''])
    >>> split_words(("New York", "is"))
    (['New York', 'is'], ['', ' ', ''])
    """
    if not isinstance(text, str):
        return list(text), ["", *[" "] * (len(text) - 1), ""]
    words, gaps, at = [], [], 0
    for found in _WORD.finditer(text):
        words.append(found[0])
        gaps.append(text[at : found.start()])
        at = found.end()
    return words, [*gaps, text[at:]]


def join_words(words: Sequence[str | None], gaps: Sequence[str]) -> str:
    """Undo :func:`split_words`; a word that is None goes, and the gap before it.

    >>> join_words(["It", None, "good", "."], ["", " ", "  ", "", ""])
    'It  good.'
    """
    parts = (gap + word for gap, word in zip(gaps, words, strict=False) if word is not None)
    return ("".join(parts) + gaps[-1]).strip()


def text_key(text: str | Sequence[str], pair: str | None = None) -> int:
    """A number that is the same for texts of the same letters and digits (``normal``); of pairs both texts count.

    >>> text_key("A  film") == text_key("a film "), text_key("a", "b") == text_key("b", "a")
    (True, False)
    """
    sides = (text if isinstance(text, str) else " ".join(text), *([] if pair is None else [pair]))
    plain = "\n".join(normal(side) for side in sides)
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def replaceable(word: str) -> bool:
    """Whether a word carries meaning: it has a letter and is no stop word.

    >>> [replaceable(word) for word in ("film", "The", "1984", "!")]
    [True, False, False, False]
    """
    return word.casefold().replace("’", "'") not in STOP_WORDS and any(map(str.isalpha, word))


class WordDistribution(NamedTuple):
    """Words to draw from, as often as they occur."""

    words: tuple[str, ...]
    cumulative: tuple[int, ...]

    def draw(self, rng: random.Random) -> str:
        """One word."""
        return rng.choices(self.words, cum_weights=self.cumulative)[0]


def words_by_tag(words: Iterable[Sequence[str]], tags: Iterable[Sequence[str]]) -> dict[str, WordDistribution]:
    """For each part of speech the words of a corpus that have it."""
    found: dict[str, Counter[str]] = {}
    for text, its_tags in zip(words, tags, strict=True):
        for word, tag in zip(text, its_tags, strict=True):
            found.setdefault(tag, Counter())[word] += 1
    return {tag: WordDistribution(tuple(bag), tuple(accumulate(bag.values()))) for tag, bag in sorted(found.items())}


class Transform(Protocol):
    """Draws one new text: a word, another word, or None (the word goes) for every place."""

    def draw(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """``notes`` say something of every word; ``aligned`` forbids that words go."""
        ...


@dataclass(frozen=True)
class NGram:
    """Masks, words of the same part of speech, and n-grams (Tang et al., 2019); notes are parts of speech.

    For every word u ~ U(0, 1): below ``mask_probability`` it is masked; below that plus
    ``part_of_speech_probability`` it becomes a word of the same part of speech, drawn as often as it occurs in
    ``bags`` (without notes it stays, and no other word's chance changes). Then, with ``ngram_probability``, an n-gram,
    n ~ U{1..max_ng} and at most all words but one, becomes one mask (``ngram`` 'mask'; a mask for each word where
    words carry labels, as iclassifier has it everywhere), or is all that stays ('keep', the paper's).
    """

    mask_probability: float = 0.1
    part_of_speech_probability: float = 0.1
    ngram_probability: float = 0.25
    max_ng: int = 5
    ngram: Literal["mask", "keep"] = "mask"
    mask_token: str = "[MASK]"
    bags: Mapping[str, WordDistribution] = field(default_factory=dict)

    def draw(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """One new text."""
        made: list[str | None] = []
        for place, word in enumerate(words):
            u = rng.random()
            if u < self.mask_probability:
                made.append(self.mask_token)
            elif notes is not None and u < self.mask_probability + self.part_of_speech_probability:
                made.append(self.bags[notes[place]].draw(rng))
            else:
                made.append(word)
        if len(words) > 1 and rng.random() < self.ngram_probability:
            count = min(rng.randint(1, self.max_ng), len(words) - 1)
            start = rng.randrange(len(words) - count + 1)
            if self.ngram == "keep":
                return [word if start <= place < start + count else None for place, word in enumerate(made)]
            rest = self.mask_token if aligned else None
            made[start : start + count] = [self.mask_token, *[rest] * (count - 1)]
        return made


@dataclass(frozen=True)
class Substitute:
    """Each word becomes one of its candidates with ``probability`` (TinyBERT, Algorithm 1); notes are candidates."""

    probability: float = 0.4

    def draw(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """One new text."""
        assert notes is not None
        return [
            rng.choice(others) if others and rng.random() < self.probability else word
            for word, others in zip(words, notes, strict=True)
        ]


class Row(NamedTuple):
    """A row to rewrite: its place in the split, its texts, and the notes on the words of each text."""

    number: int
    text: Any
    pair: str | None = None
    notes: tuple[Sequence[Any] | None, ...] = (None, None)

    @property
    def sides(self) -> tuple[Any, ...]:
        """The text, and the second one of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


Made = list[Any]  #: a new row: [text] or [text, pair]


def rewrite_row(row: Row, rule: Transform, count: int, seed: int) -> list[Made]:
    """Draw ``count`` new rows; of a pair, ``count`` for each text, the other one kept (as TinyBERT does)."""
    rng, made = random.Random(f"{seed}/{row.number}"), []
    for place, side in enumerate(row.sides):
        aligned = not isinstance(side, str)
        words, gaps = split_words(side)
        for _ in range(count if words else 0):
            drawn = rule.draw(words, row.notes[place], rng, aligned)
            fresh = list(row.sides)
            fresh[place] = drawn if aligned else join_words(drawn, gaps)
            made.append(fresh)
    return made


def rewrite_rows(job: tuple[Sequence[Row], Transform, int, int]) -> list[list[Made]]:
    """:func:`rewrite_row` for many rows; one argument, so that it can be sent to another process."""
    rows, rule, count, seed = job
    return [rewrite_row(row, rule, count, seed) for row in rows]


class Deduplicator:
    """Lets every new text pass once, none that stands in ``forbidden`` and none of ``known``; counts the others."""

    def __init__(self, known: Iterable[int], forbidden: Iterable[int]) -> None:
        self.known, self.forbidden = set(known), set(forbidden)
        self.counts: Counter[str] = Counter(drawn=0, duplicates=0, leaks=0)

    def pass_on(self, made: Iterable[Made]) -> Iterator[Made]:
        """The new rows among ``made``."""
        for fresh in made:
            key = text_key(*fresh)
            self.counts["drawn"] += 1
            if key in self.forbidden:
                self.counts["leaks"] += 1
            elif key in self.known:
                self.counts["duplicates"] += 1
            else:
                self.known.add(key)
                yield fresh
