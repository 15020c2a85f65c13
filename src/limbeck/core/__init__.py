"""Values and pure mathematics: the standard library and numpy, never torch."""
