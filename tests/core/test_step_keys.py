"""What keys have of a step beside its fields: unless it says otherwise, the services that it reads, and no more."""

from dataclasses import replace

from limbeck.core.step_keys import Keyed, ScoresParts
from limbeck.core.target import Target
from limbeck.data.synthetic import TOYS, toy_task


def test_nothing_is_idle_and_all_that_is_read_decides():
    read = {"seed": 7}
    assert Keyed().idle_fields() == Keyed().marks({"fewer_tokens"}) == {}
    assert Keyed().decisive_services(read, toy_task(train=4), Target()) == read


def test_parts_scored_by_pairs_that_all_have_the_same_score_have_another_key():
    alike = toy_task("embedding", train=4)
    equal = replace(alike, splits={"train": replace(alike.split("train"), labels=(1.0,) * 4)})
    assert ScoresParts().decisive_services({"seed": 7}, alike, Target()) == {"seed": 7}
    assert ScoresParts().decisive_services({"seed": 7}, equal, Target()) == {"seed": 7, "labels": "sampled"}


def test_parts_scored_by_answers_to_words_have_another_key_and_no_others():
    class SamplesAnswers(ScoresParts):
        samples_answers = True

    keys = {kind: SamplesAnswers().decisive_services({"seed": 7}, toy_task(kind, train=4), Target()) for kind in TOYS}
    marked = {kind for kind, key in keys.items() if key == {"seed": 7, "labels": "first-pieces"}}
    assert marked == {"tokens", "entities"}
    assert all(key == {"seed": 7} for kind, key in keys.items() if kind not in marked)
    assert ScoresParts().decisive_services({"seed": 7}, toy_task("tokens", train=4), Target()) == {"seed": 7}
