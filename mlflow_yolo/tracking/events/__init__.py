"""Ultralytics' events turned into one run: before, during and after a training."""
