"""Ray: the local cluster, its Jobs API, what is staged there, and following a job on it."""
