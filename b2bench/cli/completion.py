"""What a shell completes as values of options: names of plugins, prompt sets and presets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Complete = Callable[[str], list[str]]


def _beginning_with(names: Callable[[], Iterable[str]]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        try:
            return [name for name in names() if name.startswith(incomplete)]
        except Exception:  # somebody's plugin: the command itself says what is wrong with it
            return []

    return complete


def _plugins(kind: str) -> Complete:
    def names() -> Iterable[str]:
        from b2bench.registry import load_registries

        return {str(of): registry for of, registry in load_registries().items()}[kind].names()

    return _beginning_with(names)


def _prompt_sets() -> Iterable[str]:
    from b2bench.config.prompt_sets import prompt_set_names

    return prompt_set_names()


def _presets() -> Iterable[str]:
    from b2bench.config.presets import TUNED, preset_names

    return [*preset_names(), TUNED]


algorithms, wrappers, rewards = _plugins("algorithm"), _plugins("wrapper"), _plugins("reward")
prompt_sets, presets = _beginning_with(_prompt_sets), _beginning_with(_presets)
