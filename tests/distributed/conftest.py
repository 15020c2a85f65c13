"""Toy steps for these tests."""

from toy_fixtures import toys  # noqa: F401
