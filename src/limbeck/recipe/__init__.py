"""Recipes: parsing, validation, and checks before any work."""
