"""What can go wrong in `train`, by what the user has to mend. The CLI shows each as one line without a traceback."""


class TrainError(Exception):
    """Something the user can mend; the message names what, where and how."""


class ConfigError(TrainError):
    """The config or a `--set` says what it may not say."""


class DataError(TrainError):
    """The dataset is missing, does not fit, or holds nothing to train on."""


class RunError(TrainError):
    """The run folder: no checkpoint, one cut short, or one of another config, dataset or codec."""


class AudioError(TrainError):
    """The mix to play along with cannot be read, or is nothing to play along with."""


class DivergedError(TrainError):
    """A loss was not finite."""
