"""Readers of packed sets: decoded ahead or streamed, through a bounded cache on this machine."""
