"""Work shared by processes and machines: orders, pieces of steps, work ahead of the walk."""
