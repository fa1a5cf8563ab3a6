"""How deep to freeze: the ablation, its analysis and its report."""
