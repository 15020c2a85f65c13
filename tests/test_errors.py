from limbeck.errors import LISTED, SHOWN, nearest, shown


def test_of_many_choices_the_nearest_are_listed():
    """Such as the files of a folder."""
    names = [f"part-{number:05}.parquet" for number in range(500)] + ["valid.csv", "train.txt"]
    message = nearest("training-set.csv", names)
    assert message.startswith("choose from 'part-")
    assert message.endswith(" and 482 more")
    assert message.count("'") == 2 * LISTED
    assert "'valid.csv'" in message
    assert "'train.txt'" in message
    assert nearest("xyz", names[:LISTED]) == "choose from " + ", ".join(map(repr, names[:LISTED]))


def test_values_in_messages_are_short():
    for value in (10**5000, ["a" * 1000] * 1000, "b" * 1000, {str(key): key for key in range(10**4)}):
        assert len(shown(value)) <= SHOWN + 1
        assert len(shown(value, 40)) <= 41
    assert shown({"a": 10**9}) == "{'a': 1000000000}"
