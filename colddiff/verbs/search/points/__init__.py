"""Where trials lie: the space, points drawn from it or suggested, and the end they share."""
