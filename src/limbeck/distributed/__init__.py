"""Several processes of one training: who they are, and gradients summed over them."""
