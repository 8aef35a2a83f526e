"""``python -m b2bench``, also under ``accelerate launch -m``."""

from b2bench.cli.main import main

main()
