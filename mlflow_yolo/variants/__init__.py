"""From one checkpoint to deployable files, each with measured cost and accuracy: make, measure, compare, log."""
