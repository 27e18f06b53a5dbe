"""ftlib: fine-tuning methods, small and exact, for the ten labs. `import ftlib as ft`."""
import logging as _logging
import os as _os

_os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve shared cores (measured: 15 times slower)
_os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On AVX512-BF16 processors bitsandbytes warns that an optional Hub kernel is absent; ftlib does not want it.
_logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(_logging.ERROR)

from ftlib.adapter_io import AdapterError, load_adapter, save_adapter  # noqa: E402
from ftlib.datasets import DataError, load_base_text, load_rows, read_jsonl, show_mask  # noqa: E402
from ftlib.doctor import preflight  # noqa: E402
from ftlib.evaluate import (bootstrap_interval, forgetting, golden_accuracy, paired_difference, perplexity,  # noqa: E402
                            shots_by_family, win_rate)
from ftlib.loading import LoadError, load_model  # noqa: E402
from ftlib.logps import sequence_logps, token_logps  # noqa: E402
from ftlib.lora import (add_lora, count_parameters, describe_trainable, disable_adapter, lora_layers, merge_adapter,  # noqa: E402
                        unmerge_adapter)
from ftlib.losses import dpo_loss, kto_loss, orpo_loss, simpo_loss  # noqa: E402
from ftlib.memory import MemoryPlan, plan_memory  # noqa: E402
from ftlib.neftune import neftune  # noqa: E402
from ftlib.profiles import get_profile  # noqa: E402
from ftlib.quant import NF4_LEVELS, quantize_nf4  # noqa: E402
from ftlib.seeds import over_seeds  # noqa: E402
from ftlib.train import RunError, finetune  # noqa: E402

__version__ = "0.1.0"


class _Say(_logging.Handler):
    """Prints what ftlib reports, such as how many parameters train, where no one has set up logging; a line twice in a row once.

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
