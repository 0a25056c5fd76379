"""Pictures and tables of results: grids, strips, curves, tables, cards."""
