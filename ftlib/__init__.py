"""ftlib: fine-tuning methods, small and exact, for the ten labs. `import ftlib as ft`."""

import logging as _logging
import os as _os
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

from ftlib.core import former as _former

# Before torch: spinning threads starve shared cores (measured: 15 times slower).
_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
_os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On AVX512-BF16 processors bitsandbytes warns that an optional Hub kernel is absent; ftlib does not
# want it.
_logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(_logging.ERROR)

_former.install()
__version__ = "0.1.0"

# The public names, each loaded on first use: a command or an export does without what training
# imports (seconds, and memory).
_NAMES = {
    "core.errors": "DataError LoadError",
    "core.profiles": "get_profile",
    "core.seeds": "over_seeds",
    "core.stats": "bootstrap_interval paired_difference",
    "data.dataset_folder": "read_manifest verify_dataset write_dataset",
    "data.duplicates": "exact_duplicates near_duplicates",
    "data.formats": "convert detect_format",
    "data.load": "load_base_text load_rows",
    "data.pairs": (
        "balance_length binary_to_pairs imbalanced length_bias pairs_from_scores "
        "pairs_to_binary synthetic_pairs"
    ),
    "data.prepare": "prepare standard_rules",
    "data.splits": "split_by_group",
    "data.stream": "read_jsonl stream_rows",
    "data.write": "write_rows",
    "batches.packing": "pack",
    "batches.template": "inference_template show_mask",
    "batches.training_template": "training_template",
    "models.load": "load_model",
    "models.nf4": "NF4_LEVELS quantize_nf4",
    "adapters.io": "AdapterError load_adapter save_adapter",
    "adapters.lora": (
        "add_lora count_parameters describe_trainable disable_adapter lora_layers "
        "merge_adapter merge_and_unload unmerge_adapter"
    ),
    "losses.logps": "completion_logps sequence_logps token_logps",
    "losses.preference": "dpo_loss kto_loss orpo_loss simpo_loss",
    "training.finetune": "finetune",
    "training.folder": "RunError",
    "training.memory_plan": "MemoryPlan plan_memory",
    "training.neftune": "neftune",
    "training.prefer": "prefer",
    "evaluation.judges": "api_judge",
    "evaluation.metrics": "forgetting golden_accuracy perplexity shots_by_family",
    "evaluation.preference": "kl_to_reference win_rate",
    "export.errors": "ExportError",
    "export.gguf_writer": "export_adapter_gguf export_gguf",
    "export.go_template": "go_template render_go",
    "export.llamacpp": "quantize_gguf",
    "export.modelfile": "diagnose_stops parse_modelfile write_modelfile",
    "export.parity": "check_export",
    "export.run": "export_run",
    "export.serving": "chat serve",
    "doctor": "preflight",
}
_HOME = {name: f"ftlib.{module}" for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str):
    """A public name, or a module of the library: `ft.load_model`, `ft.losses`."""
    if name in _HOME:
        value = globals()[name] = getattr(_import_module(_HOME[name]), name)
        return value
    if not name.startswith("_") and _find_spec(f"ftlib.{name}"):
        return _import_module(f"ftlib.{name}")
    raise AttributeError(f"module 'ftlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


class _Say(_logging.Handler):
    """Prints what ftlib reports, such as how many parameters train, where no one has set up
    logging; a line twice in a row once.

    `logging.getLogger("ftlib").setLevel("WARNING")` keeps it quiet.
    """

    last = None

    def emit(self, record) -> None:
        text = self.format(record)
        if text != self.last and not _logging.getLogger().handlers:
            print(text, flush=True)
        self.last = text


_logging.getLogger("ftlib").addHandler(_Say())
_logging.getLogger("ftlib").setLevel(_logging.INFO)
