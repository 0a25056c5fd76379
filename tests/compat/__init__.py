"""What earlier versions wrote and computed, and tests that hold this version to it."""
