"""What keys have of a step beside its fields: unless it says otherwise, the services that it reads, and no more."""

from limbeck.core.step_keys import Keyed
from limbeck.core.target import Target
from limbeck.data.synthetic import toy_task


def test_nothing_is_idle_and_all_that_is_read_decides():
    read = {"seed": 7}
    assert Keyed().idle_fields() == {}
    assert Keyed().decisive_services(read, toy_task(train=4), Target()) == read
