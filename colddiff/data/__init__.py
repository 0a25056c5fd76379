"""Data sets: packed into shards with a manifest (``pack.py``), verified, and read (``open.py``)."""
