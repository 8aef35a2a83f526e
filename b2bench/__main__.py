"""``b2bench``, and ``python -m b2bench``, also under ``accelerate launch -m``."""

import os
import sys

# python -m puts the working folder first: a plugin there that is called random.py would be everybody's random. The
# command b2bench does not, and environment.is_here is not to be imported yet.
if __name__ == "__main__" and sys.path[:1] == [os.getcwd()] and not os.path.isfile("b2bench/__main__.py"):
    del sys.path[0]

from b2bench.cli.interrupts import INTERRUPTS


def main() -> None:
    """Run the command line; from its first moment to its last a signal to stop is one line and exit code 1."""
    INTERRUPTS.end_at_once()
    try:
        from b2bench.cli.main import main as command_line

        command_line()
    except KeyboardInterrupt:  # a second one, after the first was said
        sys.exit(1)
    finally:
        INTERRUPTS.ignore()


if __name__ == "__main__":
    main()
