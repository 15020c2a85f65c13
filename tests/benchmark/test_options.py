import pytest

from limbeck.benchmark.options import Training
from limbeck.errors import InputError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 2.0}, "--epochs applies to training; add --train"),
        ({"task": "moods", "train_samples": 3}, "--train-samples applies to training"),
        ({"train": "both"}, "--train needs a task"),
        ({"train": "individual", "task": "moods", "rule": "single"}, "--rule applies to shared weights"),
    ],
)
def test_contradictions(given, message):
    with pytest.raises(InputError, match=message):
        Training(**given).check()


def test_what_fits_together():
    for given in ({}, {"task": "moods"}, {"train": "shared", "task": "moods", "rule": "single"}):
        Training(**given).check()
    assert Training().ways == ()
    assert Training(train="both").ways == ("alone", "shared")
