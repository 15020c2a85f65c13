"""Groups of options: what is given where nothing is, and bounds."""

from __future__ import annotations

import pytest

from limbeck.cli._app import check_options
from limbeck.cli.run_options import Folders, Search, Serving, Teaching
from limbeck.engine.planning.compress_request import CompressRequest
from limbeck.errors import InputError


def test_the_defaults_are_those_of_the_python_api():
    request = CompressRequest()
    assert (Search().strategy, Search().effort, Search().seed) == (request.strategy, request.effort, request.seed)
    assert (Search().replicas, Search().max_minutes) == (request.replicas, request.max_minutes)
    assert Teaching().allow_weak_teacher == request.allow_weak_teacher
    check_options(Serving(), Search(), Teaching(), Folders())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Serving(threads=0), "--threads should be"),
        (Serving(candidates=1), "--candidates should be"),
        (Search(seed=-1), "--seed should be"),
        (Search(replicas=0), "--replicas should be"),
        (Search(max_minutes=0), "--max-minutes should be"),
    ],
)
def test_values_out_of_bounds_are_named_as_options(options, message):
    with pytest.raises(InputError, match=message):
        check_options(options)
