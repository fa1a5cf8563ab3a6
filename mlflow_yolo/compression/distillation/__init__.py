"""A student learns from a teacher: distances of their outputs and features are added to a training's loss."""
