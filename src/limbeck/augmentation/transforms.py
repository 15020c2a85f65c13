"""Transform texts at random: mask their words, swap them, or replace them by candidates.

References: Tang et al., 2019, arXiv:1903.12136 (masks, parts of speech, n-grams); Jiao et al., 2020, arXiv:1909.10351,
Algorithm 1 (TinyBERT: candidates for every word). Differs: white space and punctuation around words are kept; a row's
samples depend on (seed, row) alone, so any process may generate them in any order; texts whose words carry labels
change word for word. Words are separated by spaces and common punctuation marks, so languages written without spaces
need texts that are split into words. Nothing here needs torch.
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
"""English function words, negations included: replacing one would break the text."""


def split_words(text: str | Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a text into words and the gaps around them: one before each and one at the end; a word list stays as it is.

    >>> split_words("It isn't  bad.")
    (['It', "isn't", 'bad', '.'], ['', ' ', '  ', '', ''])
    >>> split_words(("New York", "is"))
    (['New York', 'is'], ['', ' ', ''])
    """
    if not isinstance(text, str):
        return list(text), ["", *[" "] * (len(text) - 1), ""]
    words, gaps, at = [], [], 0
    for match in _WORD.finditer(text):
        words.append(match[0])
        gaps.append(text[at : match.start()])
        at = match.end()
    return words, [*gaps, text[at:]]


def join_words(words: Sequence[str | None], gaps: Sequence[str]) -> str:
    """Invert :func:`split_words`; a word that is None is left out, with the gap before it.

    >>> join_words(["It", None, "good", "."], ["", " ", "  ", "", ""])
    'It  good.'
    """
    parts = (gap + word for gap, word in zip(gaps, words, strict=False) if word is not None)
    return ("".join(parts) + gaps[-1]).strip()


def text_key(text: str | Sequence[str], pair: str | None = None) -> int:
    """Hash a text, or a pair, by letters and digits alone (see ``normal``).

    >>> text_key("A  film") == text_key("a film "), text_key("a", "b") == text_key("b", "a")
    (True, False)
    """
    sides = (text if isinstance(text, str) else " ".join(text), *([] if pair is None else [pair]))
    plain = "\n".join(normal(side) for side in sides)
    return int.from_bytes(hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def replaceable(word: str) -> bool:
    """Return whether a word may be replaced: it has a letter and is no stop word.

    >>> [replaceable(word) for word in ("film", "The", "1984", "!")]
    [True, False, False, False]
    """
    return word.casefold().replace("’", "'") not in STOP_WORDS and any(map(str.isalpha, word))


class WordDistribution(NamedTuple):
    """Words with their cumulative counts."""

    words: tuple[str, ...]
    cumulative: tuple[int, ...]

    def sample(self, rng: random.Random) -> str:
        """Return a word at random, in proportion to its count."""
        return rng.choices(self.words, cum_weights=self.cumulative)[0]


def words_by_tag(words: Iterable[Sequence[str]], tags: Iterable[Sequence[str]]) -> dict[str, WordDistribution]:
    """Count the words of a corpus by part of speech."""
    counts: dict[str, Counter[str]] = {}
    for text, text_tags in zip(words, tags, strict=True):
        for word, tag in zip(text, text_tags, strict=True):
            counts.setdefault(tag, Counter())[word] += 1
    return {tag: WordDistribution(tuple(bag), tuple(accumulate(bag.values()))) for tag, bag in sorted(counts.items())}


class Transform(Protocol):
    """A random change of a text."""

    def sample(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """Generate one new text.

        Args:
            words: The words of the text.
            notes: What the transform needs to know of each word, such as its part of speech.
            rng: The random generator.
            aligned: Whether words carry labels, so that none may be removed.

        Returns:
            The word at each position: the same, another, or None where it is removed.
        """
        ...


@dataclass(frozen=True)
class NGram:
    """Masking, replacement by part of speech, and n-grams (Tang et al., 2019); notes are parts of speech.

    For every word, u ~ U(0, 1): below ``mask_probability`` it is masked; below that plus
    ``part_of_speech_probability`` it becomes a word of the same part of speech, in proportion to its count in ``bags``
    (without notes it stays, and the probabilities of other words do not change). Then, with ``ngram_probability``, an
    n-gram, n ~ U{1..max_ng} but at most all words but one, becomes one mask (``ngram`` 'mask'; a mask for each word
    where words carry labels, as iclassifier does everywhere), or is all that remains ('keep', as in the paper).
    """

    mask_probability: float = 0.1
    part_of_speech_probability: float = 0.1
    ngram_probability: float = 0.25
    max_ng: int = 5
    ngram: Literal["mask", "keep"] = "mask"
    mask_token: str = "[MASK]"
    bags: Mapping[str, WordDistribution] = field(default_factory=dict)

    def sample(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """Generate one new text; see :meth:`Transform.sample`.

        Args:
            words: The words of the text.
            notes: The part of speech of each word; None where there is no tagger.
            rng: The random generator.
            aligned: Whether words carry labels, so that none may be removed.
        """
        changed: list[str | None] = []
        for position, word in enumerate(words):
            u = rng.random()
            if u < self.mask_probability:
                changed.append(self.mask_token)
            elif notes is not None and u < self.mask_probability + self.part_of_speech_probability:
                changed.append(self.bags[notes[position]].sample(rng))
            else:
                changed.append(word)
        if len(words) > 1 and rng.random() < self.ngram_probability:
            count = min(rng.randint(1, self.max_ng), len(words) - 1)
            start = rng.randrange(len(words) - count + 1)
            if self.ngram == "keep":
                stop = start + count
                return [word if start <= position < stop else None for position, word in enumerate(changed)]
            rest = self.mask_token if aligned else None
            changed[start : start + count] = [self.mask_token, *[rest] * (count - 1)]
        return changed


@dataclass(frozen=True)
class Substitute:
    """Replacement of each word by one of its candidates (TinyBERT, Algorithm 1); notes are candidates."""

    probability: float = 0.4

    def sample(
        self, words: Sequence[str], notes: Sequence[Any] | None, rng: random.Random, aligned: bool
    ) -> list[str | None]:
        """Generate one new text; see :meth:`Transform.sample`.

        Args:
            words: The words of the text.
            notes: The candidates to replace each word.
            rng: The random generator.
            aligned: Whether words carry labels, so that none may be removed.
        """
        assert notes is not None
        return [
            rng.choice(others) if others and rng.random() < self.probability else word
            for word, others in zip(words, notes, strict=True)
        ]


class Row(NamedTuple):
    """A row to rewrite: its index in the split, its texts, and the notes on the words of each text."""

    number: int
    text: Any
    pair: str | None = None
    notes: tuple[Sequence[Any] | None, ...] = (None, None)

    @property
    def sides(self) -> tuple[Any, ...]:
        """The text, and the second text of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)


Sides = list[Any]  #: the texts of a new row: [text] or [text, pair]; a text is a string, or a list of words


def rewrite_row(row: Row, transform: Transform, count: int, seed: int) -> list[Sides]:
    """Generate new rows from a row; of a pair, each text is changed in turn and the other kept (as TinyBERT does).

    Args:
        row: The original.
        transform: The random change.
        count: New rows per text.
        seed: Seed; the result depends on it and the number of the row.
    """
    rng, samples = random.Random(f"{seed}/{row.number}"), []
    for index, side in enumerate(row.sides):
        aligned = not isinstance(side, str)
        words, gaps = split_words(side)
        for _ in range(count if words else 0):
            changed = transform.sample(words, row.notes[index], rng, aligned)
            sides = list(row.sides)
            sides[index] = changed if aligned else join_words(changed, gaps)
            samples.append(sides)
    return samples


def rewrite_rows(job: tuple[Sequence[Row], Transform, int, int]) -> list[list[Sides]]:
    """Apply :func:`rewrite_row` to many rows; a single argument, so that a process pool can map it."""
    rows, transform, count, seed = job
    return [rewrite_row(row, transform, count, seed) for row in rows]


class Deduplicator:
    """A filter for new texts that passes each once, unless it is ``forbidden`` or ``seen`` before; counts the others.

    Both are keys of texts, as :func:`text_key` returns them.
    """

    def __init__(self, seen: Iterable[int], forbidden: Iterable[int]) -> None:
        self.seen, self.forbidden = set(seen), set(forbidden)
        self.counts: Counter[str] = Counter(drawn=0, duplicates=0, leaks=0)

    def filter(self, samples: Iterable[Sides]) -> Iterator[Sides]:
        """Yield the rows that pass."""
        for sides in samples:
            key = text_key(*sides)
            self.counts["drawn"] += 1
            if key in self.forbidden:
                self.counts["leaks"] += 1
            elif key in self.seen:
                self.counts["duplicates"] += 1
            else:
                self.seen.add(key)
                yield sides
