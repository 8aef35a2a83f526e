"""What the configurations of a pipeline's networks must agree on, said before anything is drawn with them.

A prompt, a timestep and latents are all that a UNet is given here, as by ``StableDiffusionPipeline``. One that was made
for more fails at its first call with torch's words for shapes; or it runs, and means something else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from b2bench.errors import UserError

NEEDS = {
    "class_embed_type": "class labels",
    "num_class_embeds": "class labels",
    "addition_embed_type": "embeddings beside the prompt's, as Stable Diffusion XL does",
    "time_cond_proj_dim": "the guidance scale as an input, as a distilled latent consistency model does",
}
"""Fields that are empty in Stable Diffusion's UNet, and what a UNet with one of them must be given."""

TRY = "try a text-to-image checkpoint of Stable Diffusion v1 or v2"


def check_networks(unet: Any, vae: Any, text_encoder: Any) -> None:
    """Refuse networks that do not fit together, or that need more than a prompt.

    Raises:
        UserError: which field of which configuration.
    """
    config = unet.config
    channels, latent, predicted = config.in_channels, vae.config.latent_channels, config.out_channels
    if channels != latent:
        made_for = {2 * latent + 1: " (an inpainting model does)", 2 * latent: " (a model that edits images does)"}
        raise UserError(
            f"the UNet takes {channels} channels{made_for.get(channels, '')}, and the autoencoder's latents have "
            f"{latent}; {TRY}"
        )
    if predicted != channels:
        also = " (a variance too, it seems)" if predicted == 2 * channels else ""
        raise UserError(f"the UNet predicts {predicted} channels{also} for latents of {channels}; {TRY}")
    for name, what in NEEDS.items():
        if (value := config.get(name)) is not None:
            raise UserError(f"the UNet needs {what} ({name} = {value!r}), which b2bench does not give; {TRY}")
    if (kind := config.get("encoder_hid_dim_type")) not in (None, "text_proj"):
        raise UserError(f"the UNet needs image embeddings (encoder_hid_dim_type = {kind!r}); {TRY}")
    _check_text(config, text_encoder.config)
    if (size := config.sample_size) is None or isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UserError(
            f"the UNet's sample_size is {size!r}, and b2bench reads one whole number, the side of square latents; "
            "try that number in unet/config.json"
        )
    if vae.config.out_channels != 3:
        raise UserError(f"the autoencoder gives images of {vae.config.out_channels} channels, not 3; {TRY}")
    factor = vae.config.scaling_factor
    if not isinstance(factor, int | float) or not math.isfinite(factor) or factor <= 0:
        raise UserError(
            f"the autoencoder's scaling_factor is {factor!r}; try a number above 0 in vae/config.json (0.18215 in "
            "Stable Diffusion)"
        )


def _check_text(unet: Any, text: Any) -> None:
    """Refuse a UNet that reads text of another width than its encoder writes."""
    written, read = getattr(text, "hidden_size", None), unet.cross_attention_dim
    name = "cross_attention_dim"
    if unet.get("encoder_hid_dim") is not None:  # the text is projected first
        name, read = "encoder_hid_dim", unet.encoder_hid_dim
    widths = set(read) if isinstance(read, Sequence) else {read}
    if written is not None and widths != {written}:
        shown = ", ".join(map(str, sorted(widths, key=str)))
        raise UserError(
            f"the UNet reads text {shown} wide ({name}), and the text encoder writes it {written} wide (hidden_size): "
            "they are of different models; try the text encoder that the UNet was trained with"
        )
    if getattr(text, "use_attention_mask", False):
        raise UserError(
            "the text encoder masks the padding of a prompt (use_attention_mask), and b2bench does not; "
            "try use_attention_mask false in text_encoder/config.json if the UNet was trained so"
        )
