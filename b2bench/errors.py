"""The two ways a command ends badly. Nothing else may reach the terminal without a traceback."""

from typing import Any, Literal


class UserError(Exception):
    """The user's input cannot be used: what, where and what to do, in one line. Exit code 2."""


class NoRoom(UserError):
    """A disk or a quota is full, or a disk cannot be written: no fault of the run, which can go on later."""


class Busy(UserError):
    """Another process keeps the store: ``reason`` says which, and for how long it was waited for."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; try later, or another --db (b2bench merge joins the two later)")
        self.reason = reason


class Refused(UserError):
    """An algorithm and a wrapper that do not go together, by the word of one of them, or an algorithm and a reward.

    ``row`` says which, as a row of the store's table ``refusals``.
    """

    def __init__(self, row: dict[str, Any], part: Literal["wrapper", "reward"] = "wrapper") -> None:
        where = f"under {row['wrapper']}" if part == "wrapper" else f"on the reward {row['reward']}"
        super().__init__(f"{row['algorithm']} is not trained {where}: {row['reason']}")
        self.row = row


class RunFailed(Exception):
    """A run started and could not go on; its reason is in the store. Exit code 1."""
