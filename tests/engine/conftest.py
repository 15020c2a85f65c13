"""Toy steps for these tests, and what planning begins with."""

import pytest
from limited_runs import family, limited  # noqa: F401
from planned import workspace  # noqa: F401
from teacher_fixtures import rows_of, task, teacher, write_jsonl  # noqa: F401
from toy_fixtures import toys  # noqa: F401
from toy_runs import go  # noqa: F401


@pytest.fixture(autouse=True)
def _in_process(in_process):
    """Measure in the process of the test."""
