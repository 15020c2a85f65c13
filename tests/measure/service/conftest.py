"""A toy task, a tokenizer and models; requests to a service."""

import pytest
from measuring import candidate, exported, task, tokenizer  # noqa: F401


@pytest.fixture
def graph(exported):  # noqa: F811
    """The ONNX file of a small model of 44 tokens."""
    return exported.model.path
