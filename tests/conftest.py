"""What all tests share: a session without a hub and with one thread, and random models."""

from __future__ import annotations

import gc
import os
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for processes that tests start, too: each core has a worker already

import pytest
import torch
from random_models import build_model, random_batch
from timed_here import brief_tables, in_process  # noqa: F401

torch.set_num_threads(1)


def pytest_collection_finish():
    """Leave what was imported and collected out of garbage collection, which every training calls for."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Skip what needs a GPU where torch finds none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch finds no CUDA device here"))


@pytest.fixture(scope="session", autouse=True)
def _temporary_files(tmp_path_factory):
    """Put temporary folders of this session, and of its child processes, where pytest removes them after a while."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setenv("TMPDIR", str(folder))
        yield


@pytest.fixture(scope="session")
def make_model():
    return build_model


@pytest.fixture(scope="session")
def make_batch():
    return random_batch
