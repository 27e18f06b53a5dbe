"""What a run left: an adapter folder, or the model of full fine-tuning, and the base it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ftlib.adapters.peft_format import CONFIG, AdapterError, read_fields
from ftlib.core.paths import name_of
from ftlib.models.load import holds_tokenizer


@dataclass(frozen=True)
class Trained:
    """What a run left: an adapter folder over `base`, or the `model` folder of full fine-tuning."""

    base: str | None
    adapter: Path | None = None
    model: Path | None = None

    def tokenizer_folder(self, base: str) -> str:
        """Where the tokenizer and template that it was trained with are: beside what was trained,
        else (version 0.1.0 did not keep them, nor does `save_adapter`) with the base.
        """
        trained = self.adapter or self.model
        return str(trained) if trained and holds_tokenizer(trained) else base


def find_trained(run: str | Path) -> Trained:
    """What lies in a folder that `finetune` or `prefer` left, in an adapter folder or in a model
    folder. AdapterError if nothing does.
    """
    run = Path(run)
    if (run / "adapter" / CONFIG).is_file():
        adapter = run / "adapter"
        stated = _stated_base(adapter)  # first: this refuses a damaged adapter
        return Trained(_recorded_base(run) or stated, adapter=adapter)
    if (run / CONFIG).is_file():
        return Trained(_stated_base(run), adapter=run)
    if (run / "model" / "config.json").is_file():
        return Trained(_recorded_base(run), model=run / "model")
    raise AdapterError(
        f"{run} holds no adapter and no model: pass the output_dir of a finished run, "
        "or a folder that save_adapter wrote"
    )


def find_adapter(run: str | Path) -> tuple[Path, str | None]:
    """(adapter folder, base model) of a run or of an adapter folder, the base by the name that a
    profile has for it (`core.paths.name_of`). AdapterError if there is none.
    """
    found = find_trained(run)
    if not found.adapter:
        raise AdapterError(f"{run} holds a whole model, {found.model}, and no adapter")
    return found.adapter, name_of(found.base) if found.base else None


def _recorded_base(run: Path) -> str | None:
    manifest = run / "manifest.json"
    if not manifest.is_file():
        return None
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))["base"]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{manifest} is damaged ({type(error).__name__}: {error}): "
            "pass the adapter's or model's own folder"
        ) from None


def _stated_base(adapter: Path) -> str | None:
    return read_fields(adapter).get("base_model_name_or_path")
