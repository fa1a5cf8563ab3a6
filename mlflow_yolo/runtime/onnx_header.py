"""Which version of its format an ONNX file is written in."""

from pathlib import Path

from mlflow_yolo.exceptions import CheckpointError


def ir_version(file: Path) -> int:
    """Return the version of ONNX's file format, `ir_version`.

    Raises:
        CheckpointError: It is no ONNX file.
    """
    import onnx

    try:
        found = int(onnx.load(str(file), load_external_data=False).ir_version)
    except Exception as error:  # protobuf's own, of which there are several
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"model={file} is not an ONNX file: {reason}. Export it again.") from error
    if not found:
        raise CheckpointError(f"model={file} is not an ONNX file: it names no version. Export it again.")
    return found
