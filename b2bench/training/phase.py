"""Where a run is within a phase: images that are being drawn, or optimizer steps."""

from __future__ import annotations

from collections.abc import Callable

from b2bench.metrics import forward_equivalents
from b2bench.training.listener import Listener


class Phase:
    """Tell a listener how far the present phase is, from the denoiser calls and the optimizer steps that it takes.

    ``alive`` is called at each of them, and when a phase begins.
    """

    def __init__(self, listener: Listener, alive: Callable[[], None] = lambda: None) -> None:
        self.listener, self.alive = listener, alive
        self.images = self.calls = self.done = 0

    def begin(self, text: str, images: int = 0, calls: int = 0) -> None:
        """Begin what takes ``calls`` of the denoiser, each for one image and step, to draw so many ``images``."""
        self.images, self.calls, self.done = images, calls, 0
        self.listener.stage(text)
        self.alive()

    def called(self, rows: int, gradient: bool) -> None:
        """Count a call of the denoiser for ``rows`` images; ``gradient``: a backward pass follows."""
        self.done += rows
        within = ""
        if self.calls:
            drawn = min(self.images, self.images * self.done / self.calls)
            within = f"{drawn:.0f}/{self.images} images, {min(self.done, self.calls):,}/{self.calls:,} steps"
        self.listener.advanced(forward_equivalents(0, rows) if gradient else rows, within)
        self.alive()

    def stepped(self, done: int, steps: int) -> None:
        """Count an optimizer step, of those that are to be taken."""
        self.listener.advanced(0, f"{done}/{steps} optimizer steps")
        self.alive()
