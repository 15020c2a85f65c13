from __future__ import annotations

import builtins
import random

import pytest

from limbeck.augmentation import pos_taggers as taggers
from limbeck.augmentation.pos_taggers import TAGGERS, check_tagger, open_tagger, tag_rows, tag_texts
from limbeck.errors import InputError, MissingExtra

WORDS = ["the", "dog", "runs"]
TRAINED = [[("the", "DT"), ("dog", "NN"), ("runs", "VB")], [("a", "DT"), ("cat", "NN"), ("sleeps", "VB")]] * 20


@pytest.fixture(autouse=True)
def anew():
    open_tagger.cache_clear()
    yield
    open_tagger.cache_clear()


def test_names_are_checked_before_anything_is_imported():
    for spec in ("nltk", "spacy", "spacy:en_core_web_md", "spacy:/some/folder"):
        check_tagger(spec)
    with pytest.raises(InputError, match=r"no tagger 'spacey'; did you mean 'spacy'\?"):
        check_tagger("spacey")
    for spec in ("nltk:x", "spacy:"):
        with pytest.raises(InputError, match="no tagger"):
            check_tagger(spec)


def test_texts_are_tagged_in_chunks(monkeypatch):
    monkeypatch.setitem(TAGGERS, "nltk", lambda _: lambda words: [word[0] for word in words])
    assert tag_texts(("nltk", [WORDS, []])) == [["t", "d", "r"], []]
    assert tag_rows("nltk", [WORDS, [], ["x"]], chunk=2) == [["t", "d", "r"], [], ["x"]]


@pytest.mark.parametrize(("name", "extra"), [("nltk", "augment"), ("spacy", "spacy")])
def test_a_missing_library_is_named(name, extra, monkeypatch):
    real = builtins.__import__

    def without(module, *rest, **options):
        if module.split(".")[0] == name:
            raise ImportError(module)
        return real(module, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=rf"pip install 'limbeck\[{extra}\]'"):
        open_tagger(name)


def test_nltk(tmp_path, monkeypatch):
    """A perceptron trained here, where NLTK looks for its data; before, a message that says how to get it."""
    nltk = pytest.importorskip("nltk")
    from nltk.tag.perceptron import PerceptronTagger

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(InputError, match=r"nltk\.downloader averaged_perceptron_tagger_eng"):
        open_tagger("nltk")
    state = random.getstate()
    trained = PerceptronTagger(load=False)
    trained.train(TRAINED)
    folder = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    trained.save_to_json(lang="eng", loc=str(folder))
    random.setstate(state)
    assert list(open_tagger("nltk")(WORDS)) == ["DT", "NN", "VB"]
    assert tag_texts(("nltk", [WORDS, []])) == [["DT", "NN", "VB"], []]


@pytest.mark.filterwarnings("ignore")
def test_spacy(tmp_path):
    """A pipeline trained here on our own words."""
    spacy = pytest.importorskip("spacy")
    from spacy.tokens import Doc
    from spacy.training import Example

    with pytest.raises(InputError, match="spacy download en_core_web_sm"):
        open_tagger("spacy:no_such_pipeline")
    nlp = spacy.blank("en")
    nlp.to_disk(tmp_path / "bare")
    with pytest.raises(InputError, match="finds no parts of speech"):
        open_tagger(f"spacy:{tmp_path / 'bare'}")
    nlp.add_pipe("tagger")
    examples = []
    for sentence in TRAINED:
        words, tags = (list(part) for part in zip(*sentence, strict=True))
        examples.append(Example.from_dict(Doc(nlp.vocab, words=words), {"tags": tags}))
    nlp.initialize(lambda: examples)
    for _ in range(20):
        nlp.update(examples)
    nlp.to_disk(tmp_path / "trained")
    tagger = open_tagger(f"spacy:{tmp_path / 'trained'}")
    assert tagger(WORDS) == ["DT", "NN", "VB"]
    assert len(tagger(["New York", "don't"])) == 2  # words stay as they are given


def test_the_module_names_its_libraries():
    assert set(taggers.TAGGERS) == {"nltk", "spacy"}
