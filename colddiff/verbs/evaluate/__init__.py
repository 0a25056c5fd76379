"""`submit evaluate`: a checkpoint on test images, or samples against a reference set."""
