"""Search for good shapes: evolution, NSGA-II, and scores of sub-networks."""
