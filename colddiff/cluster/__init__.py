"""Ray: the local cluster, the Jobs API, staging, drivers, and workers of a work queue."""
