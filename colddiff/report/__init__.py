"""What people look at: grids, strips, curves and tables."""
