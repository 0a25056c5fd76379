"""Generation by the million: a plan of shards on a grid of seeds, workers, exactly one of each."""
