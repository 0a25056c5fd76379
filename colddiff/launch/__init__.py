"""A job on its way to a cluster: the local cluster, staging, Ray Jobs, and following along."""
