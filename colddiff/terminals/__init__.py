"""Terminals, the distributions of x_T: fitted to a data set and stored in a job's folder."""
