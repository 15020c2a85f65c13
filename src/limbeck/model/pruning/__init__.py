"""Cut heads, neurons, layers and channels out of an encoder: importance, removal, and repair of what stays."""
