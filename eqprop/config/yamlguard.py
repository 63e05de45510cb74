"""Configuration files that would fill the memory are refused before they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.sources_registry import SourcesRegistry

from eqprop.run.errors import ConfigError

LARGEST = 1_000_000  # bytes
MOST_NODES = 100_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        ConfigError: if it is larger than 1 MB, or grows beyond 100 000 values by its aliases.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ConfigError(f"{path} is larger than {LARGEST} bytes: not a configuration file")
    text = data.decode("utf-8", errors="replace")
    if "*" in text and _expanded(text) > MOST_NODES:
        raise ConfigError(f"{path} grows beyond {MOST_NODES} values by its aliases (*name)")
    return text


@contextmanager
def guarded_files() -> Iterator[None]:
    """Within it Hydra reads no configuration file that ``read`` refuses."""
    source: Any = SourcesRegistry.instance().resolve("file")  # Hydra imports its plugins itself
    original = source.load_config

    def load_config(self: Any, config_path: str) -> Any:
        path = Path(self.path, self._normalize_file_name(config_path))
        if path.is_file():
            read(path)
        return original(self, config_path)

    source.load_config = load_config
    try:
        yield
    finally:
        source.load_config = original


def _expanded(text: str) -> int:
    """How many values there are once every alias is replaced by what it stands for."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, size when it began
    total = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent):
                total += sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
                if event.anchor:
                    sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                total += 1
                open_nodes.append((event.anchor, total))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, start = open_nodes.pop()
                if anchor:
                    sizes[anchor] = total - start + 1
            if total > MOST_NODES:
                break
    except yaml.YAMLError:  # the reader says what is wrong with it, and where
        pass
    return total
