"""`submit study`: several training jobs over several seeds, run and reported as one."""
