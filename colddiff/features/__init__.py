"""Networks whose features a Frechet distance compares: one file is one network (``open.py``)."""
