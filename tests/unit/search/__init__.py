"""Search: the space, the journal, decisions and suggestions."""
