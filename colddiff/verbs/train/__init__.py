"""`submit train`: train a restorer, with workers under Ray Train or in this process."""
