"""The backbones by name. Listing them imports no torch; ``stable_diffusion`` loads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

from b2bench.errors import UserError
from b2bench.installed import entry_points
from b2bench.pocket.paths import NETWORKS, POCKET_WEIGHTS
from b2bench.pocket.world import WORLD, caption, in_order, known_sayings, parse_caption
from b2bench.text import described, suggestion

VARIANT_FILE = "variant.json"


@dataclass(frozen=True)
class Backbone:
    """A checkpoint in diffusers' ``StableDiffusionPipeline`` layout, and what to know before loading it.

    ``source`` is a folder, a .safetensors file or a hub id. ``guidance`` is the default scale; ``download`` says how
    large a hub checkpoint is. ``prompts`` are trained on by default. ``name`` is what a run records; ``broken`` says
    why a registered one cannot be used. ``scorer`` is the CLIPScore checkpoint that belongs to a pocket backbone; empty
    for every other, which is what tells the two apart. ``networks`` are the pipeline folders of a pocket backbone, one
    a template; ``source`` is the first of them until :meth:`drawing` chooses.
    """

    name: str
    source: str
    description: str
    guidance: float
    download: str = ""
    prompts: str = "template1"
    scorer: str = ""
    broken: str = ""
    networks: tuple[str, ...] = ()

    @property
    def is_pocket(self) -> bool:
        """Draws the pocket world: its judges read the images, and its vocabulary bounds the prompts."""
        return bool(self.scorer)

    def drawing(self, prompts: Iterable[str]) -> Backbone:
        """Return the backbone with the network that draws ``prompts``: of pocket the one of their template.

        Raises:
            UserError: a prompt outside the pocket vocabulary (other backbones take any text), a pair of objects said
                otherwise than the network learned it, or prompts of several templates.
        """
        if not self.is_pocket:
            return self
        first: dict[int, str] = {}
        for prompt in prompts:
            try:
                facts = parse_caption(prompt)
            except ValueError as error:
                raise UserError(str(error)) from None
            if not in_order(facts):
                known = " or ".join(repr(caption(said)) for said in known_sayings(facts.subject, facts.second or ""))
                raise UserError(
                    f"pocket's network has never read {prompt!r}: it knows each pair of objects named in one order and "
                    f"standing one way round. Of these two it draws {known} (b2bench show pocket lists all pairs)."
                )
            first.setdefault(facts.template, prompt)
        if len(first) > 1:
            named = ", ".join(f"{prompt!r} (template {template})" for template, prompt in sorted(first.items()))
            raise UserError(f"pocket has one network for each template, but these prompts mix them: {named}")
        return replace(self, source=self.networks[min(first) - 1]) if first else self


def pocket_networks(folder: Path) -> tuple[str, ...]:
    """Return the pipeline folders of a pocket model in ``folder``, in the order of the templates."""
    return tuple(str(folder / network) for network in NETWORKS)


_BUILT_IN = (
    Backbone(
        "pocket",
        str(POCKET_WEIGHTS / NETWORKS[0]),
        "embedded default: 64x64 emoji scenes, a small UNet for each template, runs on a CPU",
        guidance=3.0,
        scorer="pocket",
        networks=pocket_networks(POCKET_WEIGHTS),
    ),
    Backbone(
        "sd14",
        "CompVis/stable-diffusion-v1-4",
        "Stable Diffusion v1.4, the paper's backbone (hub id; needs a GPU to be practical)",
        guidance=5.0,
        download="about 4 GB as safetensors",
    ),
)


class _Backbones(Mapping[str, Backbone]):
    """Backbones by name; one of another package is imported when it is looked up, and nothing before."""

    def __init__(self, entries: Iterable[EntryPoint]) -> None:
        self._found: dict[str, Backbone | EntryPoint] = {backbone.name: backbone for backbone in _BUILT_IN}
        for entry in entries:
            if entry.name in self._found:
                raise UserError(f"two backbones are named {entry.name!r}: built in, and entry point {entry.value}")
            self._found[entry.name] = entry

    def __getitem__(self, name: str) -> Backbone:
        found = self._found[name]
        if isinstance(found, Backbone):
            return found
        broken = f"entry point {found.value} is not a Backbone"
        try:
            loaded = found.load()
        except (Exception, SystemExit) as error:  # somebody else's package may raise anything
            loaded, broken = None, f"entry point {found.value} cannot be loaded: {type(error).__name__}: {error}"
        if not isinstance(loaded, Backbone):
            loaded = Backbone(name, "", broken, guidance=1.0, broken=broken)
        self._found[name] = loaded
        return loaded

    def __contains__(self, name: object) -> bool:
        return name in self._found  # Mapping's own would look it up

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def backbones() -> Mapping[str, Backbone]:
    """Return the built-in backbones, then the ones of the entry-point group ``b2bench.backbones``, by name.

    Those of other packages are imported when they are looked up. One that cannot be has ``broken``.
    """
    return _Backbones(entry_points(group="b2bench.backbones"))


def own_checkpoint(backbone: Backbone, reward: type) -> str:
    """Return what ``checkpoint=auto`` of a reward stands for: the models that belong to the backbone.

    Raises:
        UserError: the reward's own ``own_checkpoint`` is broken.
    """
    own = getattr(reward, "own_checkpoint", None)
    if own is None:
        return "pocket" if backbone.is_pocket else "paper"
    try:
        return str(own(backbone))
    except Exception as error:  # a plugin may raise anything
        raise UserError(f"{reward.__name__}.own_checkpoint({backbone.name}) raised {described(error)}") from None


def _variant(folder: Path) -> Backbone:
    """Return a pocket model with another style gap, as ``b2bench pocket build --variant --install`` leaves it.

    Raises:
        UserError: it is of another world than this version's.
    """
    try:
        found = json.loads((folder / VARIANT_FILE).read_text(encoding="utf-8"))
        variant, world = found["variant"], found["world"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"backbone folder {folder}: {VARIANT_FILE} cannot be read: {error}") from None
    if world != WORLD:
        raise UserError(
            f"backbone folder {folder} holds a pocket variant of world {world}, and this version reads world {WORLD}; "
            "try building it again with b2bench pocket build --variant"
        )
    for network in NETWORKS:
        if not (folder / network / "model_index.json").is_file():
            raise UserError(
                f"backbone folder {folder} holds a pocket variant without {network}/model_index.json; try building it "
                "again with b2bench pocket build --variant"
            )
    folder = folder.resolve()
    return Backbone(
        f"pocket-{variant}",
        str(folder / NETWORKS[0]),
        f"pocket with style gap {variant}",
        guidance=backbones()["pocket"].guidance,
        scorer=str(folder / "scorer-training"),
        networks=pocket_networks(folder),
    )


def _single_file(path: Path) -> Backbone:
    if path.suffix != ".safetensors":
        raise UserError(
            f"backbone file {path} is not a .safetensors file. It may be a pickle, which can run code when it is read; "
            "try the checkpoint as .safetensors."
        )
    if not path.is_file():
        raise UserError(f"backbone file {path} does not exist; try another path")
    path = path.resolve()
    name = f"{path.stem} (file)" if path.stem in backbones() else path.stem
    return Backbone(name, str(path), "Stable Diffusion v1 in one file", guidance=5.0)


def find_backbone(name: str) -> Backbone:
    """Find a registered backbone, a pipeline folder, checkpoint file or pocket variant by its path, or a hub id.

    Raises:
        UserError: the name is none of these, or the folder is not a StableDiffusionPipeline.
    """
    known = backbones()
    if name in known:
        if known[name].broken:
            raise UserError(f"backbone {name}: {known[name].broken}; try repairing or uninstalling the package")
        return known[name]
    if name.startswith("~/"):  # in a file, or as --backbone=~/NAME, no shell does it
        name = os.path.expanduser(name)
    path = Path(name)
    if (path / VARIANT_FILE).is_file():
        return _variant(path)
    if path.is_file() or path.suffix in (".safetensors", ".ckpt"):
        return _single_file(path)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UserError(
                f"backbone folder {name} is not a diffusers pipeline: it has no model_index.json. "
                "Try saving one there with StableDiffusionPipeline.save_pretrained."
            )
        path = path.resolve()
        name = f"{path.name} (folder)" if path.name in known else path.name
        return Backbone(name, str(path), "a local StableDiffusionPipeline folder", guidance=5.0)
    if name.count("/") == 1 and not name.startswith((".", "/")):
        return Backbone(name, name, "a StableDiffusionPipeline on the hub", guidance=5.0, download="several GB")
    raise UserError(
        f"unknown backbone {name!r}.{suggestion(name, known)} Known: {', '.join(known)}; "
        "or try a pipeline folder, a .safetensors file or a hub id owner/name."
    )
