"""What the heads of the experiments' files say: the comments above their keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

LABELS = (
    *("Source", "Published", "Other estimators there", "Measured here", "Time here", "Chosen here"),
    *("Deviations", "Not confirmed in the source", "Conversion", "Twin by backprop"),
)
"""What may stand before a colon in a head, in this order."""
_TIME = re.compile(
    r"(?P<total>[^,;]+), (?P<epoch>[^,;]+) an epoch; "
    r"twin (?P<twin_total>[^,;]+)(?:, (?P<twin_epoch>[^,;]+) an epoch)?; on (?P<hardware>[^;]+)"
)


@dataclass(frozen=True)
class Head:
    """The description of an experiment, what follows each label, and its number of epochs."""

    description: str
    fields: dict[str, str] = field(default_factory=dict)
    epochs: int | None = None

    @property
    def published(self) -> str:
        """The paper's figure, without the full stop."""
        return self.fields.get("Published", "–").rstrip(".")

    @property
    def figure(self) -> str:
        """What ``Published`` says before it goes into details."""
        return re.split(r" \(|[.;] (?=[A-Z])", self.published)[0]

    @property
    def published_error(self) -> float | None:
        """The test error in per cent that ``Published`` begins with, if it does."""
        found = re.match(r"([0-9.]+) % test error", self.published)
        return float(found[1]) if found else None

    @property
    def time(self) -> dict[str, str]:
        """Total and epoch, those of the twin, and the hardware: the parts of ``Time here``."""
        found = _TIME.fullmatch(self.fields.get("Time here", "").rstrip("."))
        return {key: value or "–" for key, value in found.groupdict().items()} if found else {}


def heads(folder: Path) -> dict[str, Head]:
    """The heads of all experiments in a folder, by name."""
    return {path.stem: head_of(path) for path in sorted(folder.glob("*.yaml"))}


def head_of(path: Path) -> Head:
    """The head of an experiment's file."""
    labels = "|".join(map(re.escape, LABELS))
    paragraphs: dict[str, list[str]] = {"": []}
    label = ""
    for line in _comments(path):
        found = re.match(rf"({labels}): ?(.*)", line)
        label, line = (found[1], found[2]) if found else (label, line)
        paragraphs.setdefault(label, []).append(line)
    texts = {label: " ".join(lines) for label, lines in paragraphs.items()}
    return Head(texts.pop(""), texts, _epochs(path))


def _comments(path: Path) -> Iterator[str]:
    """The comment lines above the first key, without Hydra's header and the command."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            return
        if line and not line.startswith(("# @package", "# python ")):
            yield line.removeprefix("#").strip()


def _epochs(path: Path) -> int | None:
    """``trainer.epochs`` of the file, or of the experiment that it begins from."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    epochs = (content.get("trainer") or {}).get("epochs")
    bases = [word for word in content.get("defaults", ()) if isinstance(word, str)]
    for base in bases if epochs is None else ():
        file = path.with_name(f"{base}.yaml")
        epochs = _epochs(file) if base != "_self_" and file.is_file() else epochs
    return epochs
