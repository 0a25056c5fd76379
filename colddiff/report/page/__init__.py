"""The report page: one file that shows what was undone, how well, and how each number was made."""
