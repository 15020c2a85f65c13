"""Storage that survives a crash: output folders, JSON lines, memory-mapped arrays, work spread over processes."""
