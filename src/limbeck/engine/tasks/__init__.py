"""The task of a run: loaded, checked, answered where it has no labels, fitted to its model, stored."""
