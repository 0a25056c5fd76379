"""What nobody needs any more in a STORAGE, and on this machine: found, and deleted."""
