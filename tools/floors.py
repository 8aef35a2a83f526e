"""Show the import graph as a house: floors, circles, arrows that run back up, and the walk of ``config``.

``python tools/floors.py [ROOT]``, of the checkout ROOT. A room is a folder of b2bench/ or a module beside them; of
pocket/, whose world stands at the bottom and whose measuring near the top, each module is a room. A room stands one
floor above the highest room that it imports; imports within functions and behind TYPE_CHECKING count. Rooms or modules
of a circle import each other by some way round. An arrow runs back up when it leads from a line of pyproject.toml's
``layers`` contract to a higher one; where no line has its ends, when it closes a circle.

The walk of ``config`` is made of the arrows between rooms that hand on a run's configuration, from the command line to
the store: its length is the sum of the floors that they go down, and says how far a reader climbs who follows one
value from end to end.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import grimp

MOUNTED = ("algorithms", "leaderboard", "prompts", "rewards")
"""Top-level folders of a checkout that a wheel has within the package"""

Arrows = dict[str, set[str]]
"""What imports what: a module or a room -> those that it imports"""


@dataclass(frozen=True)
class House:
    """The modules' arrows, the line of the contract that a room is in, and which modules hand on a configuration."""

    modules: Arrows
    layers: dict[str, int]
    handling: set[str]

    @property
    def rooms(self) -> Arrows:
        """The rooms' arrows: a room imports what one of its modules imports from another room."""
        found: Arrows = {room(module): set() for module in self.modules}
        for module, others in self.modules.items():
            found[room(module)] |= {room(other) for other in others} - {room(module)}
        return found

    @property
    def circles(self) -> list[list[str]]:
        """Modules, and rooms, that import each other by some way round."""
        found = {tuple(sorted(circle)) for arrows in (self.modules, self.rooms) for circle in components(arrows)}
        return sorted([*circle] for circle in found if len(circle) > 1)

    @property
    def back(self) -> list[tuple[str, str]]:
        """Arrows of modules that run back up."""
        return sorted(
            (module, other) for module, others in self.modules.items() for other in others if self.up(module, other)
        )

    def up(self, module: str, other: str) -> bool:
        """Whether the arrow from one module to the other runs back up."""
        start, end = self.layer(module), self.layer(other)
        if start is None or end is None:
            return module in reached(self.modules, other)
        return end > start

    def layer(self, module: str) -> int | None:
        """The line of the contract that has the module or a package that it is in, from below; None where none has."""
        parts = module.split(".")
        names = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
        return next((self.layers[name] for name in names if name in self.layers), None)

    @property
    def walk(self) -> list[tuple[str, str]]:
        """Arrows between rooms that hand on a configuration, from the command line to the store."""
        starts = {module for module in self.modules if room(module) == "b2bench.cli"}
        ends = {module for module in self.modules if room(module) == "b2bench.store"}
        handed = self.handling | starts | ends
        own = {module: others & handed for module, others in self.modules.items() if module in handed}
        below = set().union(starts, *(reached(own, start) for start in starts))
        between = {module for module in below if module in ends or reached(own, module) & ends}
        arrows = {(room(module), room(other)) for module in between for other in own[module] & between}
        return sorted((start, end) for start, end in arrows if start != end)


def room(module: str) -> str:
    """``b2bench.store.rows`` -> ``b2bench.store``."""
    parts = module.split(".")
    return module if parts[1:2] == ["pocket"] else ".".join(parts[:2])


def reached(arrows: Arrows, start: str) -> set[str]:
    """All that ``start`` imports, by any way; itself only if it is in a circle."""
    found: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += arrows[module]
    return found


def components(arrows: Arrows) -> list[list[str]]:
    """Strongly connected components, each after those that it imports (Tarjan 1972)."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in sorted(arrows[module]):
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            place = stack.index(module)
            found.append(stack[place:])
            del stack[place:]

    for module in sorted(arrows):
        if module not in number:
            visit(module)
    return found


def floors(arrows: Arrows) -> dict[str, int]:
    """The floor of each, 0 for what imports nothing; those of a circle stand on one floor."""
    found: dict[str, int] = {}
    for circle in components(arrows):
        below = set().union(*(arrows[module] for module in circle)) - set(circle)
        found |= dict.fromkeys(circle, max((found[other] + 1 for other in below), default=0))
    return found


def hands_on(source: str) -> bool:
    """Whether code names the class RunConfig, or anything of it ``config``."""
    nodes: Iterable[ast.AST] = ast.walk(ast.parse(source))
    named = (getattr(node, field, None) for node in nodes for field in ("id", "arg", "name", "attr"))
    return not {"config", "configs", "RunConfig"}.isdisjoint(name for name in named if isinstance(name, str))


def contract(root: Path) -> dict[str, int]:
    """The line of each name in the ``layers`` contract, counted from below."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    lines = next(one["layers"] for one in settings["contracts"] if one["type"] == "layers")
    names = ((number, name) for number, line in enumerate(reversed(lines)) for name in re.findall(r"[\w.]+", line))
    return {name if name.startswith("b2bench.") else f"b2bench.{name}": number for number, name in names}


def house(root: Path) -> House:
    """The house of a checkout, laid out first as a wheel has it, where every module is under its name."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "b2bench"
        for source, target in ((root / "b2bench", package), *((root / name, package / name) for name in MOUNTED)):
            for file in source.rglob("*.py"):
                copy = target / file.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        sys.path.insert(0, folder)
        try:
            graph = grimp.build_graph("b2bench", cache_dir=None)
        finally:
            sys.path.remove(folder)
        handling = set()
        for module in graph.modules:
            place = Path(folder, *module.split("."))
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if hands_on(file.read_text(encoding="utf-8")):
                handling.add(module)
    arrows = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    return House(arrows, contract(root), handling)


def main() -> None:
    """Print the house, floor by floor, and its figures."""
    found = house(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    of_rooms, of_modules = floors(found.rooms), floors(found.modules)
    for floor in range(max(of_rooms.values()), -1, -1):
        names = sorted(name.removeprefix("b2bench.") for name in of_rooms if of_rooms[name] == floor)
        print(f"floor {floor:2}  {' '.join(names)}")
    for circle in found.circles:
        print("circle   ", " - ".join(circle))
    for module, other in found.back:
        print("back up  ", module, "->", other)
    for what, arrows, of in (("rooms", found.rooms, of_rooms), ("modules", found.modules, of_modules)):
        print(f"{len(arrows)} {what}, {sum(map(len, arrows.values()))} arrows, {max(of.values()) + 1} floors")
    print(f"{len(found.circles)} circles, {len(found.back)} arrows back up")
    length = sum(of_rooms[start] - of_rooms[end] for start, end in found.walk)
    print(f"walk of config from the command to the store: {length} floors, by {len(found.walk)} arrows")


if __name__ == "__main__":
    main()
