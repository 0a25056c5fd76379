"""Commands on a degradation: its laws, and how it looks."""
