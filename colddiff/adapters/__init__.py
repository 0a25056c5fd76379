"""What implements the ports: one third-party service per file, and twins in memory."""
