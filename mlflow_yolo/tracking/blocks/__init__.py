"""Statistics of a model's blocks during a training: when they are taken, and where they go."""
