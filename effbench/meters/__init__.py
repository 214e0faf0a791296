"""What measures: one question a file."""
