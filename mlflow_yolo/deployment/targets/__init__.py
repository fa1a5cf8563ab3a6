"""MLflow's deployments: a server in the background, Ray Serve, configuration for others."""
