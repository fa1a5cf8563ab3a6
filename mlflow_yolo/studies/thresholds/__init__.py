"""Which conf and IoU to ship: every combination replayed from one forward pass."""
