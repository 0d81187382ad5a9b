"""What can go wrong with a transfer, and what to do about it."""
from .. import download


class BackupError(download.DownloadError):
    """A transfer failed. The message says what was wrong and what to do; nothing is lost.

    What to do: call again: it goes on from what has arrived.
    """


class BadName(BackupError, ValueError):
    """The name of a run or of a file in it could lead out of its folder.

    What to do: give the plain name, without a path. If it came from a bucket, do not trust that
    bucket.
    """


class MissingFile(BackupError):
    """The run, file or bucket is not there.

    What to do: give the run's name in full, and a snapshot that the message lists.
    """


class WrongKey(BackupError):
    """The keys are missing, wrong, expired or not allowed to do this.

    What to do: set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY to those of a key that may.
    """


class CapReached(BackupError):
    """The day's download cap is used up: here by our own count, or on the server.

    What to do: call again after midnight UTC to go on.
    """
