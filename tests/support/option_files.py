"""The option files of conf/ with their comments as the constructors' annotations give them.

``python tests/support/option_files.py`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import BaseModel

from eqprop.config.folder import conf_dir
from eqprop.config.reference import told
from eqprop.config.signature import component_type
from eqprop.config.targets import locate

COMPONENTS = (
    *("model", "cost", "optimizer", "scheduler"),
    *("dataset", "dynamics", "estimator", "noise", "ablation", "tracking"),
)
FILES = [path for group in COMPONENTS for path in sorted((conf_dir() / group).glob("*"))]
_LINE = re.compile(r"( *)(\w+): *([^#]*?) *(#.*)?$")


def parts(path: Path) -> Iterator[tuple[type[BaseModel], Mapping[str, Any]]]:
    """Each component that an option file describes: the type of its keys, and these."""
    group = path.parent.name
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    content.pop("defaults", None)
    if content == {group: None}:  # the option none
        return
    if group != "tracking":
        yield component_type(group, locate(content["_target_"])), content
        for key, part in content.items():
            if isinstance(part, Mapping) and "_target_" in part:
                yield component_type(f"{group}.{key}", locate(part["_target_"])), part
    else:
        for tracker in (content.get("trackers") or {}).values():
            yield component_type("tracking.trackers", locate(tracker["_target_"])), tracker


def keys(kind: type[BaseModel]) -> dict[str, str]:
    """What the comment of each key says: its range, and its description."""
    return {key: ": ".join(filter(None, words)) for key, words in told(kind).items()}


def rendered(path: Path) -> str:
    """The file's text with the comments of its keys written anew."""
    comments = {key: text for kind, _ in parts(path) for key, text in keys(kind).items()}
    comments.pop("_target_", None)
    lines = []
    for line in path.read_text().splitlines():
        match = _LINE.match(line)
        known = match is not None and match[2] in comments
        code = f"{match[1]}{match[2]}: {match[3]}".rstrip() if match and known else line
        lines.append((code, f"  # {comments[match[2]]}" if match and known else ""))
    width = max([len(code) for code, comment in lines if comment and len(code) < 26], default=0)
    return "".join(f"{code.ljust(width * bool(comment))}{comment}\n" for code, comment in lines)


if __name__ == "__main__":
    for path in FILES:
        path.write_text(rendered(path))
