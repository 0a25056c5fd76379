"""Readers of packed sets: memory-mapped or streamed, through a bounded local cache."""
