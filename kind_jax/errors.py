"""What a user can cause."""


class UserError(ValueError):
    """A setting, file or argument is wrong.

    The message is one sentence naming the setting or path, the value found and the value wanted.
    The command line prints it without a traceback and exits with code 2.
    """


class NoSplitError(UserError):
    """A data set is sound, but lacks the split that was asked for."""
