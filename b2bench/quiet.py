"""One progress display at a time: ours. The libraries' own bars and load reports are switched off."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """Switch off the bars and reports of diffusers, transformers and open_clip; errors still come through."""
    import diffusers
    import transformers

    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    # open_clip logs its loading steps, and failed downloads that become our own error, to the root logger
    logging.getLogger().setLevel(logging.CRITICAL)
