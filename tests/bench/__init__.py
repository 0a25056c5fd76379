"""Benchmarks: figures to read, on whatever device there is; never asserted in a test."""
