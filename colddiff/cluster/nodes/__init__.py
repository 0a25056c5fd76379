"""Whether the nodes of a cluster reach what jobs on them need."""
