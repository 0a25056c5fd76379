"""The format of packed images: tars of PNG and JSON members, and the manifest beside them."""
