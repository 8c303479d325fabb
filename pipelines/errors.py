"""What the command line reports in one line: mistakes that a user can mend, and the loss of another worker."""


class UserError(Exception):
    """A user's mistake: a missing file, a malformed row, an impossible setting.

    The message is one line that names the file, the row and the remedy. The command line
    prints it without a traceback and exits with code 2; library callers catch it as usual.
    """


class WorkerLost(Exception):
    """Another worker ended in the middle of training, and this one cannot go on. The message names it."""
