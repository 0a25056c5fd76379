"""Pictures, sentences and the page of a search, from plain data."""
