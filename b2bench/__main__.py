"""``b2bench``, and ``python -m b2bench``, also under ``accelerate launch -m``."""

import sys

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
