"""Smaller networks from trained ones: whole channels gone (structured), or single weights at zero (unstructured).

    prune(checkpoint, path, PruningSettings(ratio=0.3), imgsz=640)   # a stock checkpoint, about half the work
    YOLO(path).train(trainer=keeping_modules(DetectionTrainer), ...)

What is written is a stock Ultralytics checkpoint: it loads, validates and exports without this package. Ultralytics'
own trainers, however, build a new network from the model's yaml and copy what fits, and so give the removed channels
back without a word; `keeping_modules` is the trainer that does not.
"""
