"""Sources of images to pack: folders, published data sets, tars made by other tools."""
