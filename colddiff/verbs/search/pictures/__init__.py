"""What the pictures of a search need: gathered from its trials, measured, evaluated."""
