"""How texts are changed: the fields of each method of the augment step. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from limbeck.augmentation.pos_taggers import EXTRAS, check_installed, check_tagger
from limbeck.core.field_groups import CheckedGroup
from limbeck.core.paths import user_path
from limbeck.errors import InputError, MissingExtra, UnsupportedModel

if TYPE_CHECKING:
    from limbeck.augmentation.transforms import NGram


@dataclass(frozen=True)
class NGramConfig(CheckedGroup):
    """Fields of ``method: ngram``.

    Attributes:
        mask_probability: Share of words that are masked (ngram).
        part_of_speech_probability: Share of words swapped for one of the same part of speech (ngram).
        ngram_probability: Share of new texts in which an n-gram is masked as well (ngram).
        max_ng: Most words in an n-gram (ngram).
        n_iter: New texts for each text, before duplicates go (ngram).
        ngram: The n-gram is masked, or all other words go, as Tang et al. have it (ngram).
        tagger: Who finds parts of speech: 'nltk', 'spacy' or 'spacy:PIPELINE' (ngram).
    """

    mask_probability: Annotated[float, Ge(0), Le(1)] = 0.1
    part_of_speech_probability: Annotated[float, Ge(0), Le(1)] = 0.1
    ngram_probability: Annotated[float, Ge(0), Le(1)] = 0.25
    max_ng: Annotated[int, Ge(1), Le(1_000)] = 5
    n_iter: Annotated[int, Ge(1), Le(100_000)] = 20
    ngram: Literal["mask", "keep"] = "mask"
    tagger: str | None = None

    @property
    def used_tagger(self) -> str | None:
        """The tagger, where words are swapped at all."""
        return self.tagger if self.part_of_speech_probability else None

    def transform(self, mask_token: str) -> NGram:
        """Return the transform; it swaps no words yet."""
        from limbeck.augmentation.transforms import NGram

        shares = (self.mask_probability, self.part_of_speech_probability, self.ngram_probability)
        return NGram(*shares, self.max_ng, self.ngram, mask_token)

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        problems = []
        if self.mask_probability + self.part_of_speech_probability > 1:
            problems.append("mask_probability and part_of_speech_probability: should add up to at most 1")
        try:
            check_tagger(self.tagger or "nltk")
        except InputError as error:
            problems.append(f"tagger: {error}")
        return problems

    def file_problems(self) -> list[str]:
        """Return that the tagger's library is not installed."""
        tagger = self.used_tagger
        try:
            if tagger and tagger.partition(":")[0] in EXTRAS:
                check_installed(tagger)
        except MissingExtra as error:
            return [f"tagger: {error}"]
        return []


@dataclass(frozen=True)
class SubstitutionConfig(CheckedGroup):
    """Fields of ``method: tinybert``.

    Attributes:
        mlm: A masked language model, as a folder or hub name; without, word vectors alone (tinybert).
        vectors: A text file of word vectors, such as GloVe's; without, the model's input embeddings (tinybert).
        replace_probability: Chance of each word to be replaced (tinybert).
        top_k: Candidates for each word (tinybert).
        samples: New texts for each text, before duplicates go; the paper has 20, and 10 for large tasks (tinybert).
        positions_per_pass: Words of a text that are masked at once; 1 is the paper's, more is faster (tinybert).
        mixed_precision: Arithmetic of the masked language model: float32 (no) or bfloat16; auto times both and takes
            the faster if the answers are the same (tinybert).
    """

    mlm: str | None = None
    vectors: str | None = None
    replace_probability: Annotated[float, Gt(0), Le(1)] = 0.4
    top_k: Annotated[int, Ge(1), Le(100_000)] = 15
    samples: Annotated[int, Ge(1)] = 20
    positions_per_pass: Annotated[int, Ge(1), Le(1_000)] = 1
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"

    def problems(self) -> list[str]:
        """Return the conflicts between fields."""
        if self.positions_per_pass > 1 and self.mlm is None:
            return ["positions_per_pass: is for a masked language model; name one with mlm"]
        return []

    def file_problems(self) -> list[str]:
        """Return the problems of the files; the hub is not contacted."""
        from limbeck.data.readers import missing_file
        from limbeck.model.checkpoints import peek_here

        problems = []
        path = user_path(self.vectors) if self.vectors else None
        if path is not None and not path.is_file():
            problems.append(f"vectors: {missing_file(path)}")
        try:
            if self.mlm is not None:
                peek_here(self.mlm)
        except UnsupportedModel:
            pass  # transformers opens more families than ours
        except InputError as error:
            problems.append(f"mlm: {error}")
        return problems
