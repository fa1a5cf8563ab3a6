"""Data sets: the user's own (checked before anything is trained) and the embedded handwritten digits."""
