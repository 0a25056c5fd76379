"""What a training will take, before it starts, and what it makes of a device while it runs."""
