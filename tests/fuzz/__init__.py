"""A fuzzer of what other people write: tars, JSON records, job files and overrides."""
