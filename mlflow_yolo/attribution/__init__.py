"""Which pixels a prediction rests on: class activation maps, their targets, and how far they can be trusted."""
