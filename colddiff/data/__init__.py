"""Data sets: packed from sources into shards with a manifest, verified, and read (``open.py``)."""
