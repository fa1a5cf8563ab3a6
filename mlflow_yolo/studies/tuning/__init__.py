"""Which freeze depth, learning rate, pruning ratio? Optuna decides what is tried, one owner tells it what came out."""
