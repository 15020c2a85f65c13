"""Files that survive a crash: atomic writes, locks, digests, JSON lines, YAML, memory-mapped arrays, output folders."""
