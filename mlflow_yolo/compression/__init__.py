"""Make a model smaller or faster: pruning, distillation, export, quantization."""
