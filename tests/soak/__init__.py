"""Long runs on a cluster in which processes are killed; short ones are in tests/cluster."""
