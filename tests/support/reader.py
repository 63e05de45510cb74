"""Somebody who follows a page: each command by the first rule that is about it.

A command runs as it stands, with limits that make it small; one that needs hours, a cluster or a
download is composed and validated. ``RULES`` says which; a command that none is about fails.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pages
import pytest
from hydra.types import RunMode
from running import ROOT, train

from eqprop.cli.command import prepared
from eqprop.config.compose import Composer
from eqprop.config.hydra_internals import get_args_parser
from eqprop.run.text import key_of
from eqprop.sweep import plan, plugin

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^(eqprop-[\w-]+) = ", PROJECT, re.MULTILINE)
EXTRAS = re.findall(r"^(\w+) = \[", PROJECT.partition("optional-dep")[2], re.MULTILINE)
PLACEHOLDERS = {"<date>": "2026-01-31", "<time>": "12-00-00", "-<name>": "-hopfield-mnist5k-a1b2c3"}
RUN = re.compile(r"(?:outputs/(?:multirun/)?\d{4}-\d\d-\d\d(?:/[\w-]+)?|\bRUN\b(?!=))")
"""What stands for a folder of the reader's; a run is put there."""
LIMITS = ("dataset=digits", "model.hidden=[16]", "dataset.batch_size=20")
LIMITS += ("trainer.epochs=1", "trainer.limit_batches=2", "tracking=none")
SHORT = {"--batches": "1", "--betas": "0.5", "--steps": "2"}
LARGE = ("experiment=", "debug=", "device=cuda", "device.index=")
DOWNLOADED = ("mnist", "fashion_mnist", "kmnist", "svhn", "cifar10", "cifar100")
ELSEWHERE = ("hydra/launcher=", "wandb_online")
"""What makes a command composed only: hours, a download, a GPU, a cluster, a login."""
SWEEP = ("sweep.n_trials=2", "sweep.repeats=1", "sweep.jobs=1")


class Reader:
    """Somebody who does what a page says, in ``cwd``."""

    def __init__(self, cwd: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cwd, self.made, self.patch = cwd, made, monkeypatch
        shutil.copytree(ROOT / "tests" / "example", cwd / "tests" / "example")
        self.go(".")

    def go(self, folder: str) -> None:
        self.cwd = (self.cwd / folder).resolve()
        self.patch.chdir(self.cwd)

    def put_runs(self, text: str) -> None:
        """A run wherever the text names one that the reader would have."""
        for name in RUN.findall(text):
            folder = self.cwd / name
            if not folder.exists():
                shutil.copytree(self.made, folder if name.count("/") != 1 else folder / "run")

    def shell(self, text: str) -> None:
        subprocess.run(["bash", "-n", "-c", text], check=True)
        for words in pages.commands(text):
            self.put_runs(" ".join(words))
            follow(self, words)

    def read(self, page: Path, first: str = "") -> None:
        """Follow a page from its first block to its last."""
        names: dict[str, object] = {"__name__": "page"}
        exec(first, names)
        for block in pages.blocks(page):
            print(f"{page.name}:{block.line}")
            if block.language == "bash":
                self.shell(given(block.text))
            elif block.language == "python":
                self.python(block.text, names)
            elif block.language != "text":  # a formula
                assert block.language == "yaml", f"{block.language!r}: which rule runs it?"
                assert block.is_file, "a file that exists, or it rots"

    def python(self, text: str, names: dict[str, object]) -> None:
        file = re.match(r"# (\w+\.py)\n", text)
        if file is not None:
            (self.cwd / file[1]).write_text(text, encoding="utf-8")
        exec(compile(text, "block", "exec"), names)


def given(text: str) -> str:
    """The text with what a reader would put for its placeholders."""
    for placeholder, value in PLACEHOLDERS.items():
        text = text.replace(placeholder, value)
    return text


def script(words: Sequence[str]) -> str | None:
    """The name of the script that the words start."""
    if words[0].startswith("eqprop-") and words[0] in PROGRAMS:
        return words[0].removeprefix("eqprop-").replace("-", "_") + ".py"
    match = re.fullmatch(r"(?:\.\./)*scripts/(.*\.py)", words[1]) if len(words) > 1 else None
    return match[1] if match and words[0] == "python" else None


def arguments(words: Sequence[str]) -> list[str]:
    return list(words[1:] if words[0].startswith("eqprop-") else words[2:])


def small(words: Sequence[str]) -> list[str]:
    """The words, with each limit that they say nothing about; layers of pictures stay whole."""
    keys = {key_of(word) for word in words}
    shaped = any("conv" in word or word.startswith(("network=", "rerun=")) for word in words)
    kept = ["dataset=", "model.hidden="] if shaped else []
    more = [x for x in LIMITS if key_of(x) not in keys and not x.startswith(tuple(kept))]
    first = next((i for i, word in enumerate(words) if "=" in word), len(words))
    return [*words[:first], *more, *words[first:]]  # overrides come in one piece


def composed(reader: Reader, words: Sequence[str]) -> None:
    argv = arguments(words)
    prepared(argv)
    args = get_args_parser().parse_args(argv)
    if args.multirun:
        plugin.register()
        composer = Composer("config", None, args.config_dir)
        master = composer.load(args.overrides, RunMode.MULTIRUN)
        asked = plan.read(composer, master)
        for number, params in enumerate(asked.sample(16)):  # every value of every axis is in it
            composer.validate(asked.compose(params), number, place=False)


def trained(reader: Reader, words: Sequence[str]) -> None:
    argv = arguments(words)
    whole = any(word.startswith(("resume=outputs", "--cfg", "--help")) for word in argv)
    ran = train(*(argv if whole else small(argv)), cwd=reader.cwd)
    assert ran.code == 0, ran.out + ran.err


def swept(reader: Reader, words: Sequence[str]) -> None:
    set_here = {"trainer.epochs", *map(key_of, SWEEP)}
    limited = [word for word in arguments(words) if key_of(word) not in set_here]
    more = SWEEP if "sweep=tpe" in words else SWEEP[1:]
    ran = train(*small([*limited, *more]), cwd=reader.cwd)
    assert ran.code == 0, ran.out + ran.err


def scripted(reader: Reader, words: Sequence[str]) -> None:
    argv, name = arguments(words), script(words)
    assert name is not None
    if name == "gradient_check.py":
        flags = [word for flag in SHORT.items() if flag[0] not in argv for word in flag]
        argv = [*(argv if any("RUN=" in word for word in argv) else small(argv)), *flags]
        argv = [word for word in argv if not word.startswith(("trainer.", "tracking="))]
    ran = train(*argv, cwd=reader.cwd, script=ROOT / "scripts" / name)
    may_miss = {"--min-cosine", "--max-error"} & set(argv)
    assert ran.code in ((0, 1) if may_miss else (0,)), ran.out + ran.err


def known_flags(reader: Reader, words: Sequence[str]) -> None:
    name = script(words)
    assert name is not None
    text = (ROOT / "scripts" / name).read_text(encoding="utf-8")
    folder = (ROOT / "scripts" / name).parent
    text += "".join(path.read_text(encoding="utf-8") for path in folder.glob("_*.py"))
    for flag in (word for word in words if word.startswith("--")):
        assert f'"{flag}"' in text, f"{name} has no {flag}"


def installed(reader: Reader, words: Sequence[str]) -> None:
    extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
    for extra in ",".join(extras).split(","):
        assert extra in ("", *EXTRAS)


def paths_exist(reader: Reader, words: Sequence[str]) -> None:
    for word in words[1:]:
        assert not word.startswith("tests/") or (ROOT / word).exists(), word


def there(reader: Reader, words: Sequence[str]) -> None:
    assert (ROOT / words[0]).stat().st_mode & 0o100


def wandb_command(reader: Reader, words: Sequence[str]) -> None:
    from wandb.cli.cli import cli

    assert words[1] in cli.commands


def tensorboard(reader: Reader, words: Sequence[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        from tensorboard.program import TensorBoard

        TensorBoard().configure(words)


def nothing(reader: Reader, words: Sequence[str]) -> None:
    """It is the shell's or another program's."""


def follow(reader: Reader, words: Sequence[str]) -> None:
    """Do what the first rule that is about the words says."""
    names = [name for name, (about, _) in RULES.items() if about(words)]
    assert names, f"no rule for: {shlex.join(words)}"
    print(f"{names[0]}: {shlex.join(words)}")
    RULES[names[0]][1](reader, words)


def is_large(words: Sequence[str]) -> bool:
    downloads = any(f"dataset={name}" in words for name in DOWNLOADED)
    return downloads or any(part in word for word in words for part in (*LARGE, *ELSEWHERE))


Rule = tuple[Callable[[Sequence[str]], bool], Callable[[Reader, Sequence[str]], None]]
RULES: dict[str, Rule] = {
    "set up": (lambda w: "pip" in w and "install" in w, installed),
    "environment": (lambda w: w[:3] == ["python3", "-m", "venv"] or w[0] == ".", nothing),
    "another folder": (lambda w: w[0] == "cd", lambda reader, w: reader.go(w[1])),
    "tests": (lambda w: w[0] == "pytest", paths_exist),
    "checks": (lambda w: w[0] in (".ci/run",), there),
    "site": (lambda w: w[0] == "mkdocs", nothing),  # test_site.py builds it
    "large": (lambda w: script(w) == "train.py" and is_large(w), composed),
    "named sweep": (lambda w: script(w) == "train.py" and "hydra.sweep.dir=" in str(w), swept),
    "sweep": (lambda w: script(w) == "train.py" and "-m" in w, composed),
    "run": (lambda w: script(w) == "train.py", trained),
    "benchmark": (lambda w: "benchmarks/" in (script(w) or ""), known_flags),
    "torture": (lambda w: script(w) == "torture.py", known_flags),
    "script": (lambda w: script(w) is not None, scripted),
    "Weights & Biases": (lambda w: w[0] == "wandb", wandb_command),
    "TensorBoard": (lambda w: w[0] == "tensorboard", tensorboard),
    "Optuna's dashboard": (
        lambda w: w[0] == "optuna-dashboard",
        lambda reader, w: _is_file(reader.cwd / w[1]),
    ),
    "Slurm's step": (lambda w: w[0] == "srun", lambda reader, w: follow(reader, w[1:])),
    "Slurm's queue": (lambda w: w[0] in ("[", "sbatch", "scontrol"), nothing),
}


def _is_file(path: Path) -> None:
    assert path.is_file(), path
