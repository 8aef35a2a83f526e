"""A plugin against the contract, in seconds and without a backbone: ``b2bench check FILE.py``.

Algorithms meet a toy policy, a network of some thousand weights with a real DDIM transition and an
adapter; wrappers meet made-up rollouts; rewards meet random images. Every check says what it found.
"""

from __future__ import annotations

import contextlib
import inspect
from functools import partial
from pathlib import Path

from b2bench.errors import UserError
from b2bench.plugins.check_algorithm import check_algorithm
from b2bench.plugins.check_reward import check_reward
from b2bench.plugins.check_wrapper import check_wrapper
from b2bench.plugins.contract import Checker, CheckResult, Failed, Stop
from b2bench.registry import Registry, check_name, import_plugin, key_of, kind_of, load_registries
from b2bench.text import suggestion


def check_file(file: Path) -> list[CheckResult]:
    """Return every check of every plugin of a file, or of the registered plugin of that name.

    A check without which the later ones mean nothing ends the list where it fails; the toy task is tried
    only by an algorithm that passes all else.

    Raises:
        UserError: there is neither such a file nor such a name, or the file does not import.
    """
    classes = import_plugin(file) if file.is_file() else _registered(file)
    checks = {"algorithm": check_algorithm, "wrapper": check_wrapper, "reward": check_reward}
    registries = load_registries()
    results = []
    for cls in classes:
        checker = Checker(cls)
        checker.run("its name is free", partial(_has_free_name, cls, file, registries[kind_of(cls)]))
        with contextlib.suppress(Stop):
            checks[kind_of(cls)](cls, checker)
        results += checker.results
    return results


def _has_free_name(cls: type, file: Path, known: Registry) -> None:
    name = key_of(cls)
    try:
        check_name(known.kind, name)
        registered = name in known.origins and known.origins[name].where != str(file)
        if not (registered and _same_file(cls, known.get(name))):
            known.add(cls, str(file))
    except UserError as error:
        raise Failed(str(error)) from None


def _same_file(cls: type, other: type) -> bool:
    """Whether a class is a registered one, or the same file that was imported once more by its path."""
    return cls is other or Path(inspect.getfile(cls)).samefile(inspect.getfile(other))


def _registered(file: Path) -> list[type]:
    registries = load_registries().values()
    name = str(file)
    found = [registry.get(name) for registry in registries if name in registry.origins]
    if found:
        return found
    if file.suffix == ".py" or len(file.parts) > 1:
        return import_plugin(file)  # which says that the file does not exist
    known = [known for registry in registries for known in registry.names()]
    raise UserError(
        f"{name} is neither a file nor a plugin's name.{suggestion(name, known)} "
        f"Known: {', '.join(known)}; or try the path of a .py file (b2bench new makes one)"
    )
