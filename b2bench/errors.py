"""The two ways a command ends badly. Nothing else may reach the terminal without a traceback."""

from typing import Any


class UserError(Exception):
    """The user's input cannot be used: what, where and what to do, in one line. Exit code 2."""


class NoRoom(UserError):
    """A disk or a quota is full, or a disk cannot be written: no fault of the run, which can go on later."""


class Refused(UserError):
    """An algorithm and a wrapper that do not go together, by the word of one of them.

    ``row`` says which, as a row of the store's table ``refusals``.
    """

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__(f"{row['algorithm']} is not trained under {row['wrapper']}: {row['reason']}")
        self.row = row


class RunFailed(Exception):
    """A run started and could not go on; its reason is in the store. Exit code 1."""
