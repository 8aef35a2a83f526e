"""The two ways a command ends badly. Nothing else may reach the terminal without a traceback."""


class UserError(Exception):
    """The user's input cannot be used: what, where and what to do, in one line. Exit code 2."""


class RunFailed(Exception):
    """A run started and could not go on; its reason is in the store. Exit code 1."""
