from __future__ import annotations

from pathlib import Path

import pytest
import stories

from limbeck.report.shareable import shareable, without_paths


@pytest.mark.parametrize(
    "text",
    [
        "and/or",
        "https://huggingface.co/a/b",
        "owner/name",
        "./here/there",
        "a / b",
        "</td></tr>",
        "/",
        "1/2/3",
        "s3://a/b/c",
    ],
)
def test_what_is_no_path_of_a_machine_stays(text):
    assert without_paths(text) == text


@pytest.mark.parametrize("path", ["/home/jane/bert", "~/models/bert", "/home/jane doe/a b/bert", "/bert"])
def test_a_path_becomes_its_name(path):
    assert without_paths(path) == "./bert"
    assert without_paths({"a": [path, 1, None], "b": (path,)}) == {"a": ["./bert", 1, None], "b": ("./bert",)}


def test_paths_within_texts_become_names():
    text = without_paths("the store '/home/jane/.cache/limbeck' is full (see /tmp/x/log.txt), ~/a/b too")
    assert text == "the store './limbeck' is full (see ./log.txt), ./b too"


def test_records_keep_all_but_paths():
    for record in stories.run_summary().records.values():
        assert shareable(record) == record
        parameters = {**record.parameters, "source": "/a/b/c"}
        clean = shareable(type(record)(**{**vars(record), "parameters": parameters, "notes": ("from /a/b/c",)}))
        assert clean.parameters == {**record.parameters, "source": "./c"}
        assert clean.notes == ("from ./c",)
        assert clean.facts == record.facts
    assert without_paths(Path("/a/b")) == Path("b")
