"""Part-of-speech taggers of optional libraries: a tagger is a function from words to a tag per word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

from limbeck.errors import InputError, MissingExtra, nearest
from limbeck.storage.parallel import chunked, in_order

Tagger = Callable[[Sequence[str]], Sequence[str]]
SPACY_PIPELINE = "en_core_web_sm"
EXTRAS = {"nltk": "augment", "spacy": "spacy"}
"""The extra of limbeck that installs each library."""


def check_tagger(spec: str) -> None:
    """Refuse anything but 'nltk', 'spacy', or 'spacy:' with the name or folder of a pipeline."""
    name, colon, rest = spec.partition(":")
    if name not in TAGGERS or (colon and (name != "spacy" or not rest)):
        raise InputError(
            f"there is no tagger '{spec}'; {nearest(name, TAGGERS)} ('spacy:NAME' names one of its pipelines)"
        )


def check_installed(spec: str) -> None:
    """Refuse a tagger whose library is not installed, without importing it."""
    name = spec.partition(":")[0]
    if find_spec(name) is None:
        raise MissingExtra(name, EXTRAS[name])


@cache
def open_tagger(spec: str) -> Tagger:
    """Open a tagger, once per process."""
    check_tagger(spec)
    name, _, rest = spec.partition(":")
    return TAGGERS[name](rest)


def _nltk(_: str) -> Tagger:
    """Open NLTK's averaged perceptron for English, of releases that store it as JSON, not as a pickle."""
    try:
        from nltk.tag.perceptron import PerceptronTagger
    except ImportError:
        raise MissingExtra("nltk", EXTRAS["nltk"]) from None
    if not hasattr(PerceptronTagger, "load_from_json"):
        raise InputError("tagger 'nltk': this release reads pickles; do: pip install 'nltk>=3.9'")
    try:
        tagger = PerceptronTagger()
    except LookupError:
        raise InputError(
            "tagger 'nltk': its English data is not installed; do: "
            "python -m nltk.downloader averaged_perceptron_tagger_eng"
        ) from None
    return lambda words: [tag for _, tag in tagger.tag(list(words))]


def _spacy(pipeline: str) -> Tagger:
    """Open a spaCy pipeline without its tokenizer and without components that tagging does not need."""
    try:
        import spacy
        from spacy.tokens import Doc
    except ImportError:
        raise MissingExtra("spacy", EXTRAS["spacy"]) from None
    pipeline = pipeline or SPACY_PIPELINE
    try:
        nlp = spacy.load(pipeline, exclude=["parser", "senter", "ner", "lemmatizer"])
    except OSError as error:
        raise InputError(
            f"tagger 'spacy': there is no pipeline '{pipeline}' ({str(error).splitlines()[0]}); do: "
            f"python -m spacy download {SPACY_PIPELINE}, or give a folder as 'spacy:FOLDER'"
        ) from None
    if not {"tagger", "morphologizer"} & set(nlp.pipe_names):
        raise InputError(
            f"tagger 'spacy': pipeline '{pipeline}' finds no parts of speech, it has {nlp.pipe_names}; "
            f"choose one with a tagger, such as {SPACY_PIPELINE}"
        )
    return lambda words: [token.tag_ or token.pos_ for token in nlp(Doc(nlp.vocab, words=list(words)))]


TAGGERS: dict[str, Callable[[str], Tagger]] = {"nltk": _nltk, "spacy": _spacy}
"""Opens each library's tagger, given what follows the colon."""


def tag_texts(job: tuple[str, Sequence[Sequence[str]]]) -> list[list[str]]:
    """Tag many texts; a single argument (tagger and texts), so that a process pool can map it."""
    spec, texts = job
    tagger = open_tagger(spec)
    return [list(tagger(words)) if words else [] for words in texts]


def tag_rows(spec: str, texts: Sequence[Sequence[str]], chunk: int = 256, workers: int = 1) -> list[list[str]]:
    """Tag all texts, in several processes.

    Args:
        spec: Name of the tagger.
        texts: Words of each text.
        chunk: Texts per job.
        workers: Number of processes.

    Returns:
        A tag per word of each text.
    """
    jobs = ((spec, [texts[index] for index in part]) for part in chunked(len(texts), chunk))
    return [tags for part in in_order(tag_texts, jobs, workers) for tags in part]
