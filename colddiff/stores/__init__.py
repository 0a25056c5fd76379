"""Object stores: a flat key-value store on a disk, in S3 or in memory (``open.py``)."""
