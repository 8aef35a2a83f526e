"""The prompt sets of the top-level folder ``prompts``; what a plugin that brings one needs."""

from b2bench.config.prompt_sets import PromptSet as PromptSet
from b2bench.config.prompt_sets import load_prompts as load_prompts
from b2bench.config.prompt_sets import prompt_set_names as prompt_set_names
