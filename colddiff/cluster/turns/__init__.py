"""Turns of jobs on a cluster: which is next, and how their drivers wait for it."""
