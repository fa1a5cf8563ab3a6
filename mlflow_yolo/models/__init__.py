"""Ultralytics models as the workflows take them: loaded, checked, validated."""
