"""`submit generate`: images from a checkpoint, each exactly once."""
