"""More training texts from those there are."""
