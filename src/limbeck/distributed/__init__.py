"""Data-parallel training: the processes, their messages, and gradients summed over them."""
