"""One training: its arguments, its checkpoint, its run and what is measured on the result."""
