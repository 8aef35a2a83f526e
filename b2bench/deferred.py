"""Modules that are imported when something of them is used, as the lazy imports of Python 3.15 are (PEP 810).

The command line alone asks for it, by :func:`defer`. torch takes four fifths of the time of commands that compute
nothing, such as ``ls``. And what a run is made of imports what a run never uses: diffusers marks its attention for
torch's compiler, and importing that (with sympy) takes longer than torch; its schedulers import scipy.stats,
transformers all that may shard a model and scipy.optimize for object detection, and open_clip timm. Packages import
each model or method that they have when one is wanted (peft), or read the source of each (transformers, as its
``__init__`` does, and a second time its processors, which models import for a name of ``typing`` and for the words of
their documentation). No setting prevents it.

While a module waits, only the names of :data:`NAMES` can be taken from it, each as a stand-in that finds the real
one when it is called, asked for an attribute or inherited from, and those of :data:`FOUND_IN`, which are taken from
where they are. Any other name imports the module at once: another version of a library that takes more from it
starts slower, and works (tests/cli/test_imports.py). Of a package of :data:`PACKAGES` only its own ``__init__``
waits: what is below it can be imported without. While peft waits it knows no method but LoRA, and transformers does
not look into the versions of what it needs.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

ROOTS = (
    "jinja2",
    "open_clip.coca_model",
    "open_clip.hf_model",
    "requests",
    "torch",
    "torch._dynamo",
    "torch.distributed._composable.fsdp",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "scipy.integrate",
    "scipy.optimize",
    "scipy.stats",
    "timm",
    "transformers.distributed.expert_parallel",
    "transformers.distributed.tensor_parallel",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.processing_auto",
    "transformers.processing_utils",
)
"""What waits, each with all that is below it; a root within another waits by itself once that one is imported."""

NAMES: Mapping[str, Sequence[str]] = {
    "jinja2.ext": ("Extension",),  # transformers.utils
    "jinja2.sandbox": ("ImmutableSandboxedEnvironment",),
    "open_clip.coca_model": ("CoCa",),
    "open_clip.hf_model": ("HFTextEncoder",),
    "torch": ("Tensor",),
    "torch._dynamo.utils": ("is_compile_supported",),  # torchvision.ops
    "torch._dynamo._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),  # transformers.masking_utils
    # transformers.distributed
    "torch.distributed._composable.fsdp": ("fully_shard",),
    "torch.distributed.checkpoint.hf_storage": ("HuggingFaceStorageReader", "HuggingFaceStorageWriter"),
    "torch.distributed.fsdp": ("CPUOffloadPolicy", "MixedPrecisionPolicy"),
    "torch.distributed.tensor": ("DTensor", "Partial", "Replicate", "Shard", "distribute_tensor"),
    "torch.distributed.tensor._utils": ("compute_local_shape_and_global_offset",),
    "torch.distributed.tensor.placement_types": ("Shard", "_StridedShard"),
    "scipy.optimize": ("linear_sum_assignment",),
    "transformers.distributed.expert_parallel": ("apply_expert_parallelism",),
    "transformers.distributed.tensor_parallel": (
        "apply_tensor_parallelism",
        "gather_state_dict_for_save",
        "get_kv_heads_per_rank",
        "verify_tp_plan",
    ),
    "transformers.models.auto.image_processing_auto": ("AutoImageProcessor",),  # diffusers.loaders
    "timm.layers": ("RotAttentionPool2d", "AttentionPool2d", "Mlp", "to_2tuple"),
}
NEED_TORCH = ("accelerate", "diffusers", "open_clip", "peft", "safetensors.torch", "torchvision", "transformers")
"""Libraries that get the real torch: it is imported before them."""

PACKAGES = (
    "diffusers.hooks",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
    "peft",
    "peft.tuners",
    "torchvision",
    "torchvision.datasets",
    "torchvision.models",
    "torchvision.ops",
    "transformers",
    "transformers.models",
)
"""Packages whose own ``__init__`` waits until something is taken from it; modules below are imported as ever."""

FOUND_IN: Mapping[str, Mapping[str, str]] = {
    "peft": {"LoraConfig": "peft.tuners.lora", "PeftConfig": "peft.config", "inject_adapter_in_model": "peft.mapping"},
    "transformers": {
        **dict.fromkeys(("Cache", "DynamicCache", "EncoderDecoderCache"), "transformers.cache_utils"),
        "AutoImageProcessor": "transformers.models.auto.image_processing_auto",
        "AutoTokenizer": "transformers.models.auto.tokenization_auto",
        "BloomPreTrainedModel": "transformers.models.bloom.modeling_bloom",
        "CLIPTextConfig": "transformers.models.clip.configuration_clip",
        "CLIPTextModel": "transformers.models.clip.modeling_clip",
        "CLIPTokenizer": "transformers.models.clip.tokenization_clip",
        "PreTrainedModel": "transformers.modeling_utils",
    },
    "transformers.models.auto.image_processing_auto": {
        "IMAGE_PROCESSOR_MAPPING_NAMES": "transformers.models.auto.auto_mappings"
    },
    "transformers.models.auto.processing_auto": {"PROCESSOR_MAPPING_NAMES": "transformers.models.auto.auto_mappings"},
    "transformers.processing_utils": {"Unpack": "typing"},
}
"""Where those names are, which a run takes from what waits, without its having to be imported.

The two mappings are the same objects as afterwards, but lack what the waiting module adds to them: models look up in
them what their documentation shall call a processor.
"""

FIRST = {"peft": "peft.peft_model"}
"""What a package's ``__init__`` imports before the rest, of which some cannot be imported first: a circle."""

MODULES = ("torch.nn", "torch.nn.functional", "timm.layers")
"""Modules below a root that can be taken from it, and wait with it."""

COMPILER = "torch._dynamo"


def _elsewhere(full: str, name: str) -> Any:
    """Return what a waiting module will have under ``name``, from where it is.

    Raises:
        LookupError: that is not known, or in this version of the library not so.
    """
    try:
        return getattr(importlib.import_module(FOUND_IN.get(full, {})[name]), name)
    except (ImportError, AttributeError) as error:
        raise LookupError(f"{full}.{name}") from error


def _version(package: str) -> str:
    from importlib.metadata import version  # reads the rules of e-mail: commands that compute nothing do without

    return version(package)


class _Waiting(ModuleType):
    """A module of a root that is not imported yet; and afterwards a way to the real one, for those who took it."""

    def __getattr__(self, name: str) -> Any:
        full = self.__name__
        if (real := vars(self).get("_real")) is not None:
            return getattr(real, name)
        root = _FINDER.root_of(full)
        if root is not None:
            if name in NAMES.get(full, ()):
                return _Name(self, name)
            if f"{full}.{name}" in MODULES:
                return importlib.import_module(f"{full}.{name}")
            if full == COMPILER and name in _MARKS:
                return _MARKS[name]
            with suppress(LookupError):
                return _elsewhere(full, name)
            if name.startswith("__") and name != "__version__":  # asked of every module, to learn what it is
                raise AttributeError(f"module {full!r}, which is not imported yet, has no attribute {name!r}")
        real = _FINDER.imported(full)
        vars(self)["_real"] = real
        return getattr(real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or isinstance(value, _Waiting):
            super().__setattr__(name, value)
        else:
            setattr(_FINDER.imported(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self):
            super().__delattr__(name)
        else:
            delattr(_FINDER.imported(self.__name__), name)


class _WaitingPackage(ModuleType):
    """A package of :data:`PACKAGES` whose ``__init__`` has not run; it runs when something is taken from it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):  # asked of every module
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if self.__loader__ is _FINDER and self.__name__ in FOUND_IN:
            with suppress(LookupError, ImportError):
                return _version(self.__name__) if name == "__version__" else _elsewhere(self.__name__, name)
            if PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__) is not None:
                return importlib.import_module(f"{self.__name__}.{name}")
        real = _FINDER.begun(self)
        return ModuleType.__getattribute__(self, name) if real is self else getattr(real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name.startswith("__") or isinstance(value, ModuleType)  # the modules below it
        if own or (real := _FINDER.begun(self)) is self:
            super().__setattr__(name, value)
        else:
            setattr(real, name, value)

    def __delattr__(self, name: str) -> None:
        if (real := _FINDER.begun(self)) is self or name in vars(self):
            super().__delattr__(name)
        else:
            delattr(real, name)

    def __dir__(self) -> list[str]:
        return dir(_FINDER.begun(self)) if self.__loader__ is _FINDER else list(vars(self))


class _Name:
    """A class or function of a waiting module."""

    def __init__(self, module: _Waiting, name: str) -> None:
        self._module, self._name = module, name

    @property
    def _waits(self) -> bool:
        """True: there is no class yet, so nothing is of it."""
        return _FINDER.root_of(self._module.__name__) is not None

    @functools.cached_property
    def _real(self) -> Any:
        return getattr(_FINDER.imported(self._module.__name__), self._name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__bases__", "__mro__", "__name__", "__qualname__"):
            raise AttributeError(name)
        return getattr(self._real, name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real,)

    def __instancecheck__(self, value: object) -> bool:
        return not self._waits and isinstance(value, self._real)

    def __subclasscheck__(self, cls: type) -> bool:
        return not self._waits and issubclass(cls, self._real)

    def __or__(self, other: Any) -> Any:
        return self._real | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real


class _Finder(MetaPathFinder, Loader):
    """What is asked first for a module, and answers for those that wait."""

    def __init__(self) -> None:
        self._loaded: set[str] = set(ROOTS)  # until :func:`defer` is called
        self._lock = threading.RLock()

    def begin(self) -> None:
        # a second call, as of a command in a process that has run one, finds modules that wait already
        self._loaded = {root for root in ROOTS if root in sys.modules and type(sys.modules[root]) is not _Waiting}
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
            sys.meta_path.append(_LAST)

    def root_of(self, name: str) -> str | None:
        """Return the root that a module waits with; None if it does not wait."""
        return next((r for r in ROOTS if r not in self._loaded and (name == r or name.startswith(f"{r}."))), None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in NEED_TORCH and self.root_of("torch") is not None:
            self.imported("torch")
        if fullname in PACKAGES and (real := PathFinder.find_spec(fullname, path)) is not None:
            spec = ModuleSpec(fullname, self, origin=real.origin, loader_state=real, is_package=True)
            spec.submodule_search_locations, spec.has_location = real.submodule_search_locations, True
            return spec
        root = self.root_of(fullname)
        if root is None or (fullname == root and PathFinder.find_spec(fullname, path) is None):  # not installed
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Waiting(spec.name) if spec.loader_state is None else _WaitingPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but what must be first: the module waits."""
        first = FIRST.get(module.__name__)
        if first is not None and isinstance(module, _WaitingPackage):
            try:
                importlib.import_module(first)
            except ImportError:  # it is another version
                self.begun(module)

    def begun(self, package: _WaitingPackage) -> ModuleType:
        """Run the ``__init__`` of a package if it has not, and return what stands under its name then."""
        name, spec = package.__name__, package.__spec__
        with self._lock:
            if spec is not None and spec.loader is self:
                real = spec.loader_state
                package.__spec__, package.__loader__ = real, real.loader
                try:
                    real.loader.exec_module(package)
                except BaseException:
                    package.__spec__, package.__loader__ = spec, self
                    raise
                above, _, own = name.rpartition(".")
                if above and sys.modules[name] is not package:  # it has put another module in its place
                    setattr(sys.modules[above], own, sys.modules[name])
            return sys.modules[name]

    def imported(self, name: str) -> ModuleType:
        """Return the real module, imported with all of its root that waits."""
        with self._lock:
            root = self.root_of(name)
            if root is not None:
                self._loaded.add(root)
                below = [found for found in sys.modules if found == root or found.startswith(f"{root}.")]
                waiting = {found: sys.modules.pop(found) for found in below if type(sys.modules[found]) is _Waiting}
                try:
                    importlib.import_module(root)
                except BaseException:
                    self._loaded.discard(root)
                    sys.modules.update(waiting)
                    raise
                if root == COMPILER:
                    _mark_again()
        return importlib.import_module(name)


class _LastFinder(MetaPathFinder):
    """What is asked last: nobody has found a module below a package that waits; its ``__init__`` may serve it.

    transformers has names of former modules served by a finder of its own, which its ``__init__`` puts behind all.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = sys.modules.get(fullname.partition(".")[0])
        if "." in fullname and isinstance(package, _WaitingPackage) and package.__name__ not in FIRST:
            _FINDER.begun(package)
        return None


_FINDER = _Finder()
_LAST = _LastFinder()


def defer() -> None:
    """From now on let the modules of :data:`ROOTS` wait that are not imported; for a process that is b2bench's own."""
    _FINDER.begin()


def load_if_waiting(root: str) -> None:
    """Import a module of :data:`ROOTS` if it waits, before somebody may do with it what takes the real one."""
    if _FINDER.root_of(root) == root:
        _FINDER.imported(root)


def is_imported(name: str) -> bool:
    """Tell whether a module is imported, and does not merely wait."""
    waits = name in PACKAGES and getattr(sys.modules.get(name), "__loader__", None) is _FINDER
    return name in sys.modules and _FINDER.root_of(name) is None and not waits


# -- marks for torch's compiler -----------------------------------------------------------------------
# Decorators say what it is to leave alone, and every optimizer step that it should make two graphs around it. While
# nothing is compiled, that is nothing. Whoever compiles imports it, and it is told what was marked until then.

_allowed: list[Any] = []


def _allow_in_graph(what: Any) -> Any:
    _allowed.extend(what if isinstance(what, list | tuple) else [what])
    return what


def _constant(fn: Any) -> Any:
    fn._dynamo_marked_constant = True  # the whole of what the compiler's own function does
    return fn


def _disable(fn: Any = None, recursive: bool = True, **options: Any) -> Any:
    """Return ``fn``, left alone by the compiler once there is one."""
    if fn is None or isinstance(fn, type):
        return functools.partial(_disable, recursive=recursive, **options) if fn is None else fn
    disabled: list[Callable[..., Any]] = []

    @functools.wraps(fn)
    def alone(*arguments: Any, **named: Any) -> Any:
        if not is_imported(COMPILER):
            return fn(*arguments, **named)
        if not disabled:
            disabled.append(sys.modules[COMPILER].disable(fn, recursive, **options))
        return disabled[0](*arguments, **named)

    return alone


_MARKS: Mapping[str, Callable[..., Any]] = {
    "allow_in_graph": _allow_in_graph,
    "assume_constant_result": _constant,
    "disable": _disable,
    "graph_break": lambda *arguments, **named: None,
}


def _mark_again() -> None:
    while _allowed:
        sys.modules[COMPILER].allow_in_graph(_allowed.pop())
