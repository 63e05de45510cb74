"""The words of a command line: flags, overrides, and what a slip of the hand was meant to be."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import OmegaConf

from eqprop.config.compose import Composer
from eqprop.config.explain import meant
from eqprop.config.hydra_internals import flag_names, get_args_parser
from eqprop.run.errors import ConfigError
from eqprop.run.text import brief, flatten, nearest

SHELLS = ("bash", "fish", "zsh")


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The flags and overrides of a command line; ConfigError, one line, on the first slip."""
    try:
        args = get_args_parser().parse_args(list(argv))
    except ConfigError as error:
        for place, word in enumerate(argv):
            if _is_unknown_flag(word):
                raise ConfigError(_meant_by_flag(word, argv[place + 1 :])) from error
        raise ConfigError(f"{error}; --hydra-help explains the flags") from error
    if args.shell_completion:
        _check_completion(args.overrides)
    else:
        _refuse_pieces(args.overrides)
    _refuse_idle_flags(args)
    return args


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags with their values, and the overrides."""
    words = list(parsed(argv).overrides)
    return [word for word in argv if word not in words], words


def _is_unknown_flag(word: str) -> bool:
    name, known = word.partition("=")[0], flag_names()
    if not name.startswith("-") or not name.strip("-") or name in known:
        return False
    return not (name.startswith("--") and any(flag.startswith(name) for flag in known))


def _meant_by_flag(word: str, rest: Sequence[str]) -> str:
    name, equals, value = word.partition("=")
    if not equals and rest and "=" not in rest[0] and not rest[0].startswith("-"):
        value, word = rest[0], f"{word} {rest[0]}"
    key = name.lstrip("-").replace("-", "_")
    if (near := _nearest_key(key)) is not None:
        return f"{brief(word)}: no such flag; write {near}={value or 'VALUE'}"
    how = meant(name, [flag for flag in flag_names() if flag.startswith("--")])
    return f"{brief(word)}: no such flag{how or '; settings are written key=value, see --help'}"


def _nearest_key(name: str) -> str | None:
    """The key or group that a flag of this name was meant to be."""
    plain: Any = OmegaConf.to_container(Composer().load([]), resolve=False)
    keys = [key for key, _ in flatten(plain) if not key.startswith("hydra.")]
    groups = [group for group in Composer().loader.list_groups("") if group != "hydra"]
    if (near := nearest(name, [*keys, *groups])) is not None:
        return near
    lasts = {key.rpartition(".")[2]: key for key in reversed(keys)}
    return lasts.get(nearest(name, lasts) or "")


def _refuse_pieces(words: Sequence[str]) -> None:
    """Refuse an override that the shell has cut at its blanks, with the whole one."""
    for place, word in enumerate(words):
        after = words[place + 1 :]
        for end in range(1, len(after) + 1) if _open(word) > 0 else ():
            whole = " ".join([word, *after[:end]])
            if _open(whole) <= 0:
                how = f"quote it, {shlex.quote(whole)}, or leave the blanks out"
                raise ConfigError(f"{brief(whole)}: the shell cuts it at its blanks; {how}")
        follows = after[:1] if word.endswith("=") or after[:1] == ["="] else []
        pieces = [word, *follows, *(after[1:2] if follows == ["="] else [])]
        if word.startswith("=") and place:
            pieces = [words[place - 1], word]
        if len(pieces) > 1 and "".join(pieces).count("=") == 1:
            told = "".join(pieces)
            raise ConfigError(f"{brief(' '.join(pieces))}: write it without blanks: {told}")
        if after and "=" in word and _is_bare(after[0]):
            whole = f"{word} {after[0]}"
            raise ConfigError(
                f"{brief(after[0])}: missing '='; write {brief(after[0])}=VALUE, or "
                f"{shlex.quote(whole)} if it belongs to what is before it"
            )


def _is_bare(word: str) -> bool:
    return "=" not in word and not word.startswith(("~", "+"))


def _open(text: str) -> int:
    """How many brackets of a value are not closed, outside of quotes."""
    depth, quote = 0, ""
    for sign in text.partition("=")[2]:
        if quote or sign in "'\"":
            quote = "" if sign == quote else quote or sign
        else:
            depth += (sign in "[{(") - (sign in "]})")
    return depth


def _check_completion(words: Iterable[str]) -> None:
    asked = [word.partition("=") for word in words]
    known = [a for a in asked if a[0] in ("install", "uninstall", "query") and a[2] in SHELLS]
    if len(asked) != 1 or not known:
        given = " ".join("".join(one) for one in asked)
        raise ConfigError(
            f"--shell-completion {given}".rstrip()
            + f": must be install=SHELL or uninstall=SHELL, SHELL one of {', '.join(SHELLS)}"
        )
    if known[0][0] == "query" and "COMP_LINE" not in os.environ:
        raise ConfigError(
            f"--shell-completion query={known[0][2]}: the shell itself calls this; set it up by "
            f"--shell-completion install={known[0][2]}, as --hydra-help shows"
        )


def _refuse_idle_flags(args: argparse.Namespace) -> None:
    """Refuse flags that would do nothing, or what nobody here can use."""
    if args.package is not None and args.cfg is None:
        raise ConfigError(f"--package {args.package}: goes with --cfg: add --cfg job")
    if args.experimental_rerun is not None:
        raise ConfigError(
            f"--experimental-rerun {args.experimental_rerun}: reads a pickle that no run writes; "
            "write rerun=RUN, a run's folder"
        )
