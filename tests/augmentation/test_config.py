import pytest

from limbeck.augmentation import pos_taggers
from limbeck.augmentation.config import NGramConfig, SubstitutionConfig
from limbeck.augmentation.transforms import NGram


def test_the_transform_has_the_fields():
    config = NGramConfig(0.3, 0.2, 0.1, max_ng=2, ngram="keep")
    assert config.transform("<mask>") == NGram(0.3, 0.2, 0.1, 2, "keep", "<mask>")
    assert NGramConfig().transform("[MASK]") == NGram()


@pytest.mark.parametrize(("share", "used"), [(0.1, "nltk"), (0.0, None)])
def test_a_tagger_is_used_only_where_words_are_swapped(share, used, monkeypatch):
    config = NGramConfig(part_of_speech_probability=share, tagger="nltk")
    assert config.used_tagger == used
    monkeypatch.setattr(pos_taggers, "find_spec", lambda name: None)
    assert len(config.file_problems()) == (used is not None)


def test_fields_are_checked_together():
    assert NGramConfig().problems() == SubstitutionConfig().problems() == []
    assert len(NGramConfig(0.6, 0.6, tagger="ntlk").problems()) == 2
    assert "name one with mlm" in SubstitutionConfig(positions_per_pass=2).problems()[0]


def test_files_that_are_not_there_are_all_told(tmp_path):
    (tmp_path / "empty").mkdir()
    vectors, mlm = SubstitutionConfig(vectors="nowhere.txt", mlm=str(tmp_path / "empty")).file_problems()
    assert vectors.startswith("vectors: nowhere.txt")
    assert mlm.startswith("mlm: ")
    assert SubstitutionConfig(mlm="owner/name").file_problems() == []
