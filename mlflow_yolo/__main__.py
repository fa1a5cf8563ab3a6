"""`python -m mlflow_yolo` is the console command `mlflow-yolo`."""

from mlflow_yolo.cli import main

if __name__ == "__main__":
    main()
