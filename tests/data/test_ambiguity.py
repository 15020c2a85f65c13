import pytest

from limbeck.data.ambiguity import Choice, ambiguous, quoted


def test_the_error_shows_every_reading_and_how_to_choose_it():
    choices = [
        Choice("several labels", {"label_separator": '"|"'}, "'a|b' is several labels"),
        Choice("two columns", {"label": ("a", "b"), "kind": "multilabel"}, "a 0, b 1"),
    ]
    lines = str(ambiguous("a.csv", choices, "labels are joined")).splitlines()
    assert lines == [
        "a.csv: labels are joined; two readings are plausible; choose one:",
        "  several labels; the first row: 'a|b' is several labels",
        """    label_separator: "|"   (--task-set 'label_separator="|"')""",
        "  two columns; the first row: a 0, b 1",
        "    label: [a, b], kind: multilabel   (--task-set 'label=[a, b]' --task-set kind=multilabel)",
    ]


@pytest.mark.parametrize("count", [2, 5])
def test_readings_are_counted(count):
    choices = [Choice(f"reading {number}", {"label": number}, "") for number in range(count)]
    assert f"{'two' if count == 2 else count} readings" in str(ambiguous("a.csv", choices))


def test_names_are_quoted():
    assert quoted(["text", "label"]) == "'text', 'label'"
