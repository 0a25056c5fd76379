"""Evaluation of restorers and samples: sums over batches that merge over workers (PAPER 6)."""
