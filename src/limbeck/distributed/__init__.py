"""Work on several processes and machines: executors with their workers, and data-parallel training."""
