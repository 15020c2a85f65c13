"""Files that survive a crash: JSON lines, memory-mapped arrays, work spread over processes."""
