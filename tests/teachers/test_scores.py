import numpy as np
import pytest
from scipy.special import softmax

from limbeck.core.task import Split, Task
from limbeck.errors import InputError
from limbeck.teachers.scores import ScoreFormat, are_probabilities, check_gives_scores, names_labels

LABELS = ("bad", "fair", "good")
GIVEN = ScoreFormat("classification", LABELS, probabilities=True)


def test_scores_by_name_are_put_into_the_order_of_the_labels():
    assert GIVEN.read({"good": 0.7, "bad": 0.2, "fair": 0.1}, "line 1") == [0.2, 0.1, 0.7]
    assert GIVEN.read({"Good": 0.7, "BAD": 0.2, "fair": 0.1}, "line 1") == [0.2, 0.1, 0.7]
    assert ScoreFormat("regression", (), probabilities=False).read(2, "line 1") == [2.0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.5, 0.5], "expected 3 scores (bad, fair, good), got 2"),
        ({"bad": 0.5, "good": 0.5}, "every label needs a score"),
        ({"bad": 0.5, "good": 0.4, "fine": 0.1}, "'fine': choose from"),
        ([0.5, float("nan"), 0.5], "nan"),
        ([0.5, None, 0.5], "expected a number"),
        ([1e300, 0.0, 0.0], "expected a finite score, at most 3.4e+38, for each label, got 1e+300"),
        ([10**400, 0, 0], "expected a finite score"),
        (["0.5", 0.1, 0.4], "expected a number"),
        ([0.5, 0.1, 0.1], "sum to 0.7, not to 1"),
        ([1.5, -0.6, 0.1], "1.5 is not a probability"),
        ("good", "expected a score for each label"),
    ],
)
def test_wrong_scores_are_one_clear_error(value, message):
    with pytest.raises(InputError) as error:
        GIVEN.read(value, "scores.jsonl, line 7")
    assert str(error.value).startswith("scores.jsonl, line 7: ")
    assert message in str(error.value)


def test_logarithms_of_probabilities_are_the_logits_up_to_a_constant():
    """So that a softmax at any temperature is the same."""
    logits = np.random.default_rng(0).normal(size=(20, 3)) * 4
    back = GIVEN.logits(softmax(logits, axis=1))
    for temperature in (1.0, 2.0, 5.0):
        np.testing.assert_allclose(softmax(back / temperature, 1), softmax(logits / temperature, 1), atol=1e-6)
    assert np.isfinite(GIVEN.logits(np.array([[1.0, 0.0, 0.0]]))).all()


def test_log_odds_of_several_labels_are_the_logits_themselves():
    logits = np.random.default_rng(0).normal(size=(20, 3)) * 4
    several = ScoreFormat("multilabel", LABELS, probabilities=True)
    np.testing.assert_allclose(several.logits(1 / (1 + np.exp(-logits))), logits, atol=1e-5)
    assert np.isfinite(several.logits(np.array([[1.0, 0.0, 0.5]]))).all()


def test_probabilities_are_told_from_logits():
    assert are_probabilities("classification", np.array([[0.2, 0.8], [1.0, 0.0]]))
    assert are_probabilities("classification", np.array([[0.9, 0.05, 0.05], [0.33, 0.33, 0.33]]))
    assert not are_probabilities("classification", np.array([[0.2, 0.8], [1.2, -0.2]]))
    assert are_probabilities("multilabel", np.array([[0.9, 0.9]]))
    assert not are_probabilities("regression", np.array([[0.5]]))
    assert are_probabilities("tokens", np.full((2, 3), np.nan)) is None


def test_rounded_probabilities_are_divided_by_their_sum():
    assert GIVEN.read([0.33, 0.33, 0.33], "line 1") == pytest.approx([1 / 3] * 3)
    hundred = ScoreFormat("classification", tuple(map(str, range(100))), probabilities=True)
    assert sum(hundred.read([0.61, *[0.0] * 99], "line 1")) == pytest.approx(1)
    assert ScoreFormat("multilabel", LABELS, probabilities=True).read([0.9, 0.2, 0.1], "line 1") == [0.9, 0.2, 0.1]


def test_all_scores_name_their_labels_or_none_does():
    by_name, by_place = {"bad": 1.0}, [1.0, 0.0, 0.0]
    assert names_labels([(by_name, "line 1"), ([None, None], "line 2"), ([by_name], "line 3")]) is True
    assert names_labels([(by_place, "line 1"), ([by_place, None], "line 2")]) is False
    assert names_labels([([None], "line 1")]) is None
    for rows in ([by_name, by_place], [by_place, by_name], [by_place, [None, by_name]], [[by_name, by_place]]):
        places = [f"line {number}" for number in range(1, len(rows) + 1)]
        with pytest.raises(InputError, match=f"line {len(rows)}: scores (in lists|by label name), where others are"):
            names_labels(zip(rows, places, strict=True))
    with pytest.raises(InputError, match="line 9: scores in lists"):
        names_labels([(by_place, "line 9")], named=True)


def test_scores_are_refused_where_a_task_has_vectors():
    pairs = Split(("a",), (1.0,), ("b",))
    with pytest.raises(InputError, match=r"'scores\.jsonl' gives scores, and the answers of a task of kind"):
        check_gives_scores("scores.jsonl", Task("pairs", "embedding", {"train": pairs}, (), "spearman"))
    check_gives_scores("scores.jsonl", Task("pairs", "regression", {"train": pairs}, (), "pearson"))
