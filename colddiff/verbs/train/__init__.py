"""`submit train`: a restorer, trained by workers under Ray Train or in this process."""
