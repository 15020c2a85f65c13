import pytest

from limbeck.storage.atomic import replacing, sync
from limbeck.storage.drafts import remove_leftovers


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_earlier_file_and_no_draft(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with replacing(path) as draft:
            draft.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_a_draft(tmp_path):
    with replacing(tmp_path / "file") as draft:
        assert draft.parent == tmp_path
        remove_leftovers(tmp_path)
        assert draft.exists()
    sync(tmp_path / "file")
    sync(tmp_path)
