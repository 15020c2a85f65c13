import pytest

from limbeck.search.study_config import StudyConfig


@pytest.mark.parametrize(
    ("fields", "method", "problems"),
    [
        ({}, "evolution", []),
        ({"storage": "study.jsonl"}, "nsga2", []),
        ({"storage": "study.jsonl"}, "random", ["storage needs method: nsga2, got method: random"]),
        ({"study_name": "first"}, "nsga2", ["study_name needs a storage"]),
    ],
)
def test_a_storage_is_for_nsga2(fields, method, problems):
    assert StudyConfig(**fields).problems(method) == problems


def test_a_study_is_shared_only_where_its_storage_is_named(tmp_path):
    own, named = StudyConfig().file(tmp_path, {}), StudyConfig("all.jsonl", "first").file(tmp_path, {"space": "s"})
    assert (own.storage, own.shared) == (tmp_path / "study.jsonl", False)
    assert (named.storage, named.name, named.shared, named.settings) == ("all.jsonl", "first", True, {"space": "s"})
    assert StudyConfig().file(None, {}).storage is None
