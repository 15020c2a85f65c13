"""A space of shapes with pretended latencies, for the scripts of benchmarks; a store for the runs of pages."""

import shutil

import pytest
from measuring import pretended, setting, space  # noqa: F401


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store of all runs of a file, which so share what they fine-tune and time alike."""
    folder = tmp_path_factory.mktemp("store")
    yield folder
    shutil.rmtree(folder)  # gigabytes, which would stay to the end of the session
