from limbeck.errors import LISTED, nearest


def test_of_many_choices_the_nearest_are_listed():
    """Such as the files of a folder."""
    names = [f"part-{number:05}.parquet" for number in range(500)] + ["valid.csv", "train.txt"]
    said = nearest("training-set.csv", names)
    assert said.startswith("choose from 'part-")
    assert said.endswith(" and 482 more")
    assert said.count("'") == 2 * LISTED
    assert "'valid.csv'" in said
    assert "'train.txt'" in said
    assert nearest("xyz", names[:LISTED]) == "choose from " + ", ".join(map(repr, names[:LISTED]))
