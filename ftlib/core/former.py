"""Where modules were in version 0.1, so that notebooks handed out with it still run.

Importing a former module gives one that finds its names where they are now, and says so in a
DeprecationWarning. All of this goes with version 0.3.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from importlib import import_module

MODULES = {
    "adapter_io": "adapters.io adapters.peft_format",
    "atomic": "core.atomic",
    "baselines": "adapters.hooked adapters.active adapters.prefix adapters.bottleneck",
    "baselines.bottleneck": "adapters.bottleneck",
    "baselines.prefix": "adapters.prefix",
    "checkpoints": "models.random_checkpoint",
    "cleaning": "data.clean data.pii",
    "datasets": (
        "data.load data.rows data.stream batches.encode batches.collate batches.template "
        "core.errors"
    ),
    "deploy": "export.run export.trained",
    "duplicates": "data.duplicates data.contamination",
    "evaluate": (
        "evaluation.generate evaluation.metrics evaluation.preference evaluation.judges core.stats "
        "training.sampling"
    ),
    "export.tensors": "export.source export.errors",
    "export.vocab": "export.vocabulary export.gguf_vocabulary",
    "export.writer": "export.gguf_writer export.gguf_adapter export.gguf_names",
    "files": "data.stream data.write core.atomic",
    "filters": "data.rules",
    "forked": "course.sandbox",
    "formats": "data.formats",
    "gotemplate": "export.go_template",
    "grading": "course.grading course.release",
    "hub": "data.hub",
    "judges": "evaluation.judges",
    "labs": (
        "course.notebooks course.executing course.stored_notebook course.index_page "
        "course.catalogue"
    ),
    "loading": "models.load core.paths core.errors batches.template",
    "logps": "losses.logps",
    "lora": (
        "adapters.lora adapters.lora_layer adapters.merging adapters.trainable adapters.functional"
    ),
    "lora_math": "adapters.functional",
    "manifest": "data.dataset_folder",
    "memory": "training.memory_plan core.tiles core.machine",
    "meter": "training.memory_meter",
    "modelfile": "export.modelfile export.make_modelfile",
    "neftune": "training.neftune",
    "packing": "batches.packing batches.collate",
    "pairs": "data.pairs data.feedback data.length_bias",
    "pipeline": "data.prepare",
    "plots": "course.plots",
    "preference": "training.prefer",
    "preference_data": "batches.preference batches.collate",
    "preference_trainer": "training.preference_trainer training.samplers",
    "profiles": "core.profiles",
    "progress": "training.live core.notebook",
    "quant": "models.nf4",
    "readers": "data.read",
    "reference": "training.reference",
    "rows": "data.rows core.errors",
    "seeds": "core.seeds",
    "serving": "export.serving",
    "splits": "data.splits",
    "templates": "batches.template batches.shown_mask batches.training_template",
    "texts": "data.texts",
    "train": (
        "training.finetune training.run training.trainer training.samplers training.options "
        "training.folder"
    ),
}
# Packages that had names of their own, and are empty now.
PACKAGES = {
    "course": "course.exercise course.report course.quiz course.memory_planner course.progress",
    "course.quizzes": "course.quiz",
    "export": "export.gguf_writer export.gguf_adapter export.llamacpp export.gguf_file "
    "export.parity export.export_report export.llama_outputs export.errors",
    "losses": "losses.preference",
}
# Names that two modules shared, and that differ now: (former module, name) -> the name today.
RENAMED = {
    ("duplicates", "normalise"): "fold_text",
    ("manifest", "MANIFEST"): "DATASET_MANIFEST",
}


def _finder(former: str, homes: str):
    """A module's `__getattr__` that looks a name up in the modules it may be in now."""

    def find(name: str):
        today = RENAMED.get((former, name), name)
        if not name.startswith("__") and not _is_module(former, name):
            for home in homes.split():
                module = import_module(f"ftlib.{home}")
                if today in vars(module):
                    warnings.warn(
                        f"ftlib.{former}.{name} is ftlib.{home}.{today} now",
                        DeprecationWarning,
                        stacklevel=2,
                    )
                    return vars(module)[today]
        raise AttributeError(
            f"module 'ftlib.{former}' has no attribute {name!r}; its names are in "
            f"ftlib.{homes.replace(' ', ', ftlib.')}"
        )

    return find


def _is_module(package: str, name: str) -> bool:
    """Whether a package that is still there has a module of this name, which then is meant."""
    path = vars(sys.modules[f"ftlib.{package}"]).get("__path__", [])
    spec = importlib.machinery.PathFinder.find_spec(f"ftlib.{package}.{name}", list(path))
    return spec is not None


class _Former(types.ModuleType):
    """A module that was.

    It can be called: `ftlib.neftune` was a module with the name of a public function.
    """

    def __call__(self, *args, **options):
        function_name = self.__name__.rpartition(".")[2]
        function = getattr(self, function_name)
        return function(*args, **options)


class _FormerModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Asked last: for modules that are nowhere else."""

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        if package != "ftlib" or name not in MODULES:
            return None
        is_package = f"{name}.prefix" in MODULES
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec):
        return _Former(spec.name)

    def exec_module(self, module) -> None:
        name = module.__name__.removeprefix("ftlib.")
        module.__getattr__ = _finder(name, MODULES[name])


class _FormerNames(importlib.abc.MetaPathFinder):
    """Asked first, for the packages that had names: gives the package, which also finds those."""

    def find_spec(self, fullname, path=None, target=None):
        name = fullname.removeprefix("ftlib.")
        if name == fullname or name not in PACKAGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, name)
        return spec


class _Loader(importlib.abc.Loader):
    """A package's own loader, after which the package finds its former names too."""

    def __init__(self, loader, name: str):
        self.loader = loader
        self.name = name

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module) -> None:
        self.loader.exec_module(module)
        module.__getattr__ = _finder(self.name, PACKAGES[self.name])

    def __getattr__(self, name: str):
        return getattr(self.loader, name)  # resources, source: what the package's own loader knows


def install() -> None:
    """Let former modules and names be imported; once."""
    if not any(isinstance(finder, _FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(_FormerModules())
        sys.meta_path.insert(0, _FormerNames())
