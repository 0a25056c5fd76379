"""What can be packed: folders of images, published sets, tars of others."""
