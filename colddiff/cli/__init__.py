"""The command line: data on stdout, messages on stderr, the outcome as exit code."""
