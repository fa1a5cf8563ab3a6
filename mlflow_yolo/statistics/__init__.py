"""Statistics of blocks during training: gradients, weights, activations, histograms; and comparisons (torch, numpy)."""
