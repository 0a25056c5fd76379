"""Generation: shards, the queue, whole jobs."""
