"""The command line: stdout carries data, stderr talk, the exit code is true."""
