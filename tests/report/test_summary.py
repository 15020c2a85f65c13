from __future__ import annotations

from dataclasses import replace

import stories


def test_split_is_the_one_that_all_share():
    assert stories.run_summary().split == "validation"
    records = stories.records()
    for key in ("qa", "t"):
        others = tuple(fact for fact in records[key].facts if fact.split != "validation")
        records[key] = replace(records[key], facts=others)
    assert stories.run_summary(records=records).split == "test"


def test_source_hides_folders_of_a_disk():
    summary = stories.run_summary()
    assert summary.source("qa") == "hub/tiny-bert"
    records = stories.records()
    records["root"] = replace(records["root"], parameters={"source": "/home/somebody/models/mine/"})
    assert stories.run_summary(records=records).source("qa") == "mine"
