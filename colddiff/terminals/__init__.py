"""The distribution of x_T, fitted to a data set and kept in a job's folder."""
