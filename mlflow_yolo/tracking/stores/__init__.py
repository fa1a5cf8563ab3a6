"""Where runs are stored: tracking URIs, MLflow's clients, and the state of a store."""
