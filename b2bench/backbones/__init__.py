"""The text-to-image models that are fine-tuned. A plugin's entry point gives a :class:`Backbone`."""

from b2bench.backbones.specs import Backbone as Backbone
