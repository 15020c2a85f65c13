from __future__ import annotations

from dataclasses import replace

import stories


def test_split_is_the_one_that_all_share():
    assert stories.tell().split == "validation"
    made = stories.records()
    for key in ("qa", "t"):
        kept = tuple(fact for fact in made[key].facts if fact.split != "validation")
        made[key] = replace(made[key], facts=kept)
    assert stories.tell(records=made).split == "test"


def test_source_hides_folders_of_a_disk():
    summary = stories.tell()
    assert summary.source("qa") == "hub/tiny-bert"
    made = stories.records()
    made["root"] = replace(made["root"], parameters={"source": "/home/somebody/models/mine/"})
    assert stories.tell(records=made).source("qa") == "mine"
