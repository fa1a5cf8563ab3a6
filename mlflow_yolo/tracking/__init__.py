"""MLflow tracking that neither costs nor loses: journal first, deliver in the background, replay what is left."""
