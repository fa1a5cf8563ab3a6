"""Run a variant: image to detections through ONNX Runtime or OpenVINO, without torch and without Ultralytics."""
