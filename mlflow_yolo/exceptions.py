"""The error tree of mlflow_yolo, whole.

    MlflowYoloError                     everything this package raises on purpose
    ├── InputError (ValueError)         the user's input is wrong; the CLI prints one line and exits 2
    │   ├── DatasetError                data.yaml, images, labels
    │   ├── FreezeError                 a freeze word, depth or list
    │   ├── CheckpointError             a model that does not exist, does not load or may not be loaded
    │   ├── ArgumentError               an argument or its value, ours or Ultralytics'
    │   └── StoreError                  a tracking store that cannot be opened
    ├── GateError (RuntimeError)        a gate refused a promotion; the CLI exits 3
    ├── ShapeError (ValueError)         arrays that do not fit together
    └── WorkError (RuntimeError)        a failure while working; the CLI exits 1

Every message says cause, value and remedy in one line.
"""


class MlflowYoloError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 1


class InputError(MlflowYoloError, ValueError):
    """The user's input is wrong: one line, exit code 2, nothing half-written."""

    exit_code = 2


class DatasetError(InputError):
    """A data.yaml, an image or a label file is missing or malformed."""


class FreezeError(InputError):
    """A freeze word, depth or list cannot be applied to the model."""


class CheckpointError(InputError):
    """A model does not exist, does not load, or may not be loaded."""


class ArgumentError(InputError):
    """An argument does not exist or its value cannot be used."""


class StoreError(InputError):
    """A tracking store cannot be opened."""


class GateError(MlflowYoloError, RuntimeError):
    """A gate refused a promotion: nothing was moved, exit code 3."""

    exit_code = 3


class ShapeError(MlflowYoloError, ValueError):
    """Arrays or tensors that do not fit together."""


class WorkError(MlflowYoloError, RuntimeError):
    """Something failed while working; the input was fine."""
