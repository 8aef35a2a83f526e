"""b2bench: which reinforcement-learning algorithm fine-tunes a diffusion model best per reward query?"""

from b2bench.version import BENCHMARK_VERSION as BENCHMARK_VERSION
from b2bench.version import __version__ as __version__
from b2bench.version import benchmark_version as benchmark_version
from b2bench.version import both_versions as both_versions
