"""Cut heads, neurons and layers out of an encoder: importance, removal, and repair of what stays."""
