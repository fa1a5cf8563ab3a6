"""A challenger beside the champion: shadow, canary, what came of it, and the way back."""
