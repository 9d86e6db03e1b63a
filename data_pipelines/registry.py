"""The datasets prepared from files that a user downloaded: names to their classes, loaded when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fusion_jax.errors import unknown_name

if TYPE_CHECKING:  # it reads videos; the command line's help lists datasets and reads nothing
    from data_pipelines.source import Source

# name: class prefix in its settings.py, source.py and <name>_dataset_builder.py
_CLASSES = {
    "human36m": "Human36m",
    "humaneva": "Humaneva",
    "kth_football2": "KthFootball2",
    "lsp": "Lsp",
    "mpii": "Mpii",
    "tekin_release": "TekinRelease",
}
RAW_DATASETS: tuple[str, ...] = tuple(_CLASSES)


def settings_class(name: str) -> type:
    """What can be chosen for a dataset: a frozen dataclass. Raises UserError, listing the datasets there are."""
    return getattr(_module(name, "settings"), f"{_CLASSES[name]}Settings")


def source_class(name: str) -> type[Source]:
    """The reader of a raw dataset."""
    return getattr(_module(name, "source"), f"{_CLASSES[name]}Source")


def builder_class(name: str) -> Any:
    """The TFDS builder of a raw dataset."""
    return getattr(_module(name, f"{name}_dataset_builder"), _CLASSES[name])


def _module(name: str, file: str) -> Any:
    if name not in _CLASSES:
        raise unknown_name("dataset", name, _CLASSES)
    return importlib.import_module(f"data_pipelines.{name}.{file}")
