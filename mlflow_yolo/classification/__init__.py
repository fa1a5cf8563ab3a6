"""What a classifier got right and wrong: confusion, confused pairs, calibration, best and worst images."""
