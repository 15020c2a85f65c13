"""The engine: runs the steps of recipes over candidates, stores the results, and plans for ``compress``."""
