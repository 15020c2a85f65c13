"""A toy task, a tokenizer, and models for these tests."""

from measuring import candidate, exported, pretended, setting, space, task, tokenizer  # noqa: F401
