import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from limbeck.core.candidate import Candidate
from limbeck.core.judged_texts import Document, Query
from limbeck.core.shape import Shape
from limbeck.core.task import Split, Task
from limbeck.data.batching import encode, predict
from limbeck.data.synthetic import toy_task, toy_tokenizer
from limbeck.errors import InputError
from limbeck.model.pruning.subnetwork import extract
from limbeck.search.subnet_scores import SliceScores

FULL = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
SMALL = Shape.uniform(layers=1, hidden=16, heads=2, ffn=32, head_dim=8)


@pytest.fixture
def candidate(make_model):
    task = toy_task(train=16, validation=40)
    tokenizer = toy_tokenizer(task)
    return Candidate(make_model(FULL, labels=task.num_labels, vocab_size=len(tokenizer)), tokenizer, task)


def test_the_score_is_that_of_the_extracted_model(candidate):
    small = extract(candidate.model, SMALL)
    encoded = encode(candidate.task, "validation", candidate.tokenizer)
    expected = candidate.task.score(predict(small, encoded), encoded.labels)
    assert SliceScores(candidate)([SMALL, SMALL]) == [expected, expected]
    int8 = SliceScores(candidate, "int8")([SMALL])[0]
    assert abs(int8 - expected) <= 0.1


def test_nothing_is_judged_twice_even_after_an_interruption(candidate, tmp_path, monkeypatch):
    judged, score = [], SliceScores.score
    monkeypatch.setattr(SliceScores, "score", lambda self, shape: (judged.append(shape), score(self, shape))[1])
    file = tmp_path / "work" / "scores.jsonl"
    first = SliceScores(candidate, file=file)([FULL, SMALL, FULL])
    file.write_text(file.read_text() + '{"shape": {"hid')
    again = SliceScores(candidate, file=file)
    other = Shape.uniform(layers=1, hidden=32, heads=4, ffn=64)
    assert again([SMALL, FULL, other])[:2] == [first[1], first[0]]
    assert judged == [FULL, SMALL, other]
    assert SliceScores(candidate, file=file).scores == again.scores


def test_some_rows_alone(candidate):
    rows = SliceScores(candidate, rows=[3, 5])
    assert len(rows.encoded) == 2
    assert rows([FULL])[0] in (0.0, 0.5, 1.0)
    assert np.isfinite(rows([FULL])[0])


def test_a_sample_of_a_search_is_of_its_queries(candidate):
    labels = (*map(Document, range(30)), *(Query(((number, 1.0),)) for number in range(20)))
    search = Task("s", "embedding", {"validation": Split(tuple(map(str, labels)), labels)}, (), "ndcg_at_10")
    sampled = SliceScores(replace(candidate, task=search)).sampled(7, seed=0).task.split("validation").labels
    assert sampled[:30] == labels[:30]
    assert [type(label) for label in sampled[30:]] == [Query] * 7


@pytest.mark.slow
@pytest.mark.parametrize("number_format", ["float", "int8"])
def test_workers_judge_as_one_process_does(candidate, tmp_path, number_format):
    shapes = [FULL, SMALL, FULL, Shape.uniform(layers=1, hidden=32, heads=4, ffn=64)]
    file, reported = tmp_path / "scores.jsonl", []
    alone = SliceScores(candidate, number_format, rows=range(20))
    together = SliceScores(
        candidate, number_format, rows=range(20), file=file, on_score=lambda *pair: reported.append(pair)
    )
    with together.shared(2) as scores:
        assert scores(shapes[:2]) + scores(shapes[2:]) == alone(shapes)
    assert len(file.read_text().splitlines()) == len(reported) == 3
    assert together.scores == alone.scores


@pytest.mark.slow
def test_a_worker_that_dies_is_told_and_what_was_judged_stays(candidate, tmp_path):
    """What is sent to the worker ends the process that opens it."""
    file = tmp_path / "scores.jsonl"
    with SliceScores(candidate, file=file).shared(2) as scores:
        scores([FULL, SMALL])
        with pytest.raises(InputError, match="one of 2 worker processes ended"):
            scores([_Deadly(1, 1, ())])
    assert len(SliceScores(candidate, file=file).scores) == 2


class _Deadly(Shape):
    def __reduce__(self):
        return os._exit, (9,)


def test_threads_are_as_before(candidate):
    before = torch.get_num_threads()
    SliceScores(candidate)([SMALL])
    assert torch.get_num_threads() == before
