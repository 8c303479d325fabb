"""The one exception for what a user can mend."""


class UserError(Exception):
    """A user's mistake: a missing file, a malformed row, an impossible setting.

    The message is one line that names the file, the row and the remedy. The command line
    prints it without a traceback and exits with code 2; library callers catch it as usual.
    """
