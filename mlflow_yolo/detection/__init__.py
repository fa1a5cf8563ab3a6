"""Measures of boxes against ground truth: matching, average precision, confusion, paired bootstrap."""
