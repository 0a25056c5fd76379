"""`colddiff degradations | fields | recipes | ...`: every catalogue there is, from the specs."""
