"""One training loop, many objectives."""
