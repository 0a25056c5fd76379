"""The jobs of a storage as a table, and what earlier lists know of them."""
