"""The value network of DPOK, in a file of its own: a class of torch's, where what lists algorithms needs no torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2bench.types import Conditioning


class ValueNet(nn.Module):
    """V(x_k, text, k): flattened latents and mean text embedding through three time-conditional layers.

    ReLU(gamma_k (W x + b)) thrice, then linear; gamma_k is learned for each step and channel and begins uniform in
    [0, 1), W begins as Xavier's normal, as in DPOK's code. Differs from it: text is the mean of the token
    embeddings, there the pooled text of a CLIP model.
    """

    def __init__(self, latent_size: int, text_width: int, num_steps: int, width: int = 256) -> None:
        super().__init__()
        sizes = [latent_size + text_width, width, width]
        layers, times = [nn.Linear(size, width) for size in sizes], [nn.Embedding(num_steps, width) for _ in sizes]
        self.layers, self.times, self.head = nn.ModuleList(layers), nn.ModuleList(times), nn.Linear(width, 1)
        for layer in (*layers, self.head):
            nn.init.xavier_normal_(layer.weight)
        for time in times:
            nn.init.uniform_(time.weight)

    def forward(self, cond: Conditioning, latents: Tensor, step: Tensor) -> Tensor:
        """Return the expected final reward: [B]."""
        x = torch.cat([latents.flatten(1), cond.embeddings().mean(1)], 1)
        for layer, time in zip(self.layers, self.times, strict=True):
            x = F.relu(layer(x) * time(step))
        return self.head(x).squeeze(1)
