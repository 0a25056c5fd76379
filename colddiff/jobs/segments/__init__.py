"""Jobs that a job runs: pieces of work, handed out one after the other or several at a time."""
