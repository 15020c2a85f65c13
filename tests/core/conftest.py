"""Toy steps for combinations."""

from toy_fixtures import toys  # noqa: F401
