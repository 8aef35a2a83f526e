"""Print the constraint-dependencies of pyproject.toml from uv.lock, which names hosts and is not committed.

To move the pins: empty the list in pyproject.toml, run ``uv lock --upgrade``, and paste this output there.
"""

import tomllib
from collections import defaultdict
from pathlib import Path


def pins(lock: dict) -> list[str]:
    """Exact pins of every package in the lock, with a marker where it holds several versions of one."""
    versions = defaultdict(list)
    for package in lock["package"]:
        if "registry" in package["source"]:
            versions[package["name"]].append(package)
    lines = []
    for name, packages in sorted(versions.items()):
        found = [package.get("resolution-markers", []) for package in packages]
        markers = [" or ".join(each) for each in found]
        # One version for old Pythons, one for the others: the lock spells out each Python, and platform, of both.
        pythons = [{marker.partition(" and ")[0] for marker in each} for each in found]
        old, *more = min(pythons, key=len) or {""}
        if len(packages) == 2 and not more and not pythons[0] & pythons[1] and old.startswith("python_full_version < "):
            markers = [old if python == {old} else old.replace("<", ">=") for python in pythons]
        for package, marker in zip(packages, markers, strict=True):
            condition = f" ; {marker}" if len(packages) > 1 else ""
            lines.append(f"{name}=={package['version']}{condition}".replace("python_full_", "python_"))
    return lines


if __name__ == "__main__":
    lock = tomllib.loads((Path(__file__).parents[1] / "uv.lock").read_text())
    print("constraint-dependencies = [", *(f'    "{pin}",' for pin in pins(lock)), "]", sep="\n")
