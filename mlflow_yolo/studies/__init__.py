"""Studies: a parent run with one child run per configuration, resumable at any moment."""
