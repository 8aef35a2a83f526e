"""b2bench: which reinforcement-learning algorithm fine-tunes a diffusion model best per reward query?"""

__version__ = "0.2.0.dev5"
