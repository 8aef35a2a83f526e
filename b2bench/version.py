"""The two versions: the package's and the benchmark's."""

__version__ = "0.2.0.dev5"

# The version of the benchmark, apart from the package's. It is raised by one when numbers change, and only then:
# results of different benchmark versions do not mix, and runs of another one are neither resumed nor counted as done.
# A release that changes no number leaves it alone; docs/design.md says what changes numbers.
BENCHMARK_VERSION = 3


def benchmark_version() -> str:
    """``BENCHMARK_VERSION`` as the store's columns ``benchmark_version`` hold it: as text.

    Runs that were made before there was this number have the package's version there, such as ``0.2.0.dev5``.
    """
    return str(BENCHMARK_VERSION)


def both_versions() -> str:
    """Return the package's version and the benchmark's, as ``b2bench --version`` prints them."""
    return f"{__version__} (benchmark version {BENCHMARK_VERSION})"
