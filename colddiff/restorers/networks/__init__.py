"""The networks of restorers, and what they are made of; imports torch."""
