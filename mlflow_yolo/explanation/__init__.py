"""Where a model looks and what it gets wrong: maps, worst predictions, confused pairs, bias, one report."""
