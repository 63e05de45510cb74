"""Hydra's and OmegaConf's errors in one line: the key, what was given, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from eqprop.run.errors import ConfigError
from eqprop.run.text import brief, flatten, hint, key_of, nearest, one_line, show

_CIRCLE = "the configuration refers to itself without end: look for ${…} in a circle"
_UNKNOWN = re.compile(r"Could not (?:override|delete|delete from config\.) '([^'=]+)")
_TWICE = re.compile(
    r"(?:Multiple values for|^)\s*([^\s.]+)(?: appears more than once|\. To override)"
)
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")
_NO_FOLDER = re.compile(r"path=(.*) is not\s+available")
_NO_TARGET = re.compile(r"Interpolation key '([^']+)' not found")
_BAD_OPTION = "Config group override must be"


@contextmanager
def composition(loader: ConfigLoader, name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Turn whatever composing `overrides` on the configuration `name` raises into a ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except RecursionError as error:
        raise ConfigError(_CIRCLE) from error
    except Exception as error:  # Hydra raises its own, OmegaConf's, YAML's and plain ones
        raise ConfigError(one_line(_line(error, loader, name, overrides))) from error


@contextmanager
def resolution(cfg: DictConfig) -> Iterator[None]:
    """Turn whatever resolving the configuration raises into a ConfigError."""
    try:
        yield
    except RecursionError as error:
        raise ConfigError(_CIRCLE) from error
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a key"
        raise ConfigError(f"{key}=???: must be given a value: {key}=VALUE") from error
    except Exception as error:  # a resolver is anybody's code
        raise ConfigError(one_line(_interpolation(error, cfg))) from error


def several(override: str) -> str:
    """Return the line for a comma or range where one value is wanted."""
    what = "add -m to run a job for each, or put a list in brackets: key=[a,b]"
    return f"{brief(override)}: several values; {what}"


def _line(error: Exception, loader: ConfigLoader, name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _syntax(error)
    if isinstance(error, MissingConfigException):
        return _missing(error, overrides)
    if match := _NO_FOLDER.search(text):
        return f"hydra.searchpath: there is no {match[1]}"
    if match := _SEVERAL.search(text):
        return several(match[1])
    if match := _TWICE.search(text):
        return f"{match[1]}: chosen twice; write {match[1]}=OPTION, without +"
    if text.startswith(_BAD_OPTION):
        return _bad_option(loader, overrides)
    match = _UNKNOWN.search(text)
    for override in overrides:
        if match and override.lstrip("+~").split("=", 1)[0] == match[1]:
            keys = _keys(loader, name, overrides, match[1])
            return f"{brief(override)}: unknown key '{match[1]}'{hint(match[1], keys)}"
    return _general(error, overrides)


def _syntax(error: OverrideParseException) -> str:
    given = brief(error.override)
    if "=" not in error.override and not error.override.startswith("~"):
        return f"{given}: missing '='; write {given}=VALUE"
    return f"{given}: cannot be read; put text with special characters in quotes"


def _missing(error: MissingConfigException, overrides: Sequence[str]) -> str:
    missing, options = error.missing_cfg_file, error.options
    if missing is None:
        return str(error)
    group, _, option = missing.rpartition("/")
    for override in overrides:
        key = key_of(override)
        if missing.startswith(f"{key}/"):  # the option itself may hold a "/"
            group, option = key, missing[len(key) + 1 :]
    if not group or options is None:
        return f"there is no configuration file '{missing}' in the search path"
    near = nearest(option, options)
    tail = f"; did you mean {near}?" if near else ""
    return f"{group}={brief(option)}: no such option of {group}{tail} ({_list(options)})"


def _bad_option(loader: ConfigLoader, overrides: Sequence[str]) -> str:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        options = loader.get_group_options(override.key_or_group)
        if options and not isinstance(override.value(), (str, list)):
            return f"{override.input_line}: must be the name of an option ({_list(options)})"
    return "a group must be given the name of one of its options"


def _keys(loader: ConfigLoader, name: str, overrides: Sequence[str], unknown: str) -> list[str]:
    """Return the keys that exist under the options chosen, and the groups."""
    others = [override for override in overrides if key_of(override) != unknown]
    try:
        cfg = loader.load_configuration(name, others, RunMode.MULTIRUN)
    except Exception:  # another mistake among them, which is told when this one is mended
        cfg = loader.load_configuration(name, [], RunMode.RUN)
    plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    hydra = plain.pop("hydra", {})
    if unknown.startswith("hydra."):
        plain = {"hydra": hydra}
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    return [*(key for key, _ in flatten(plain)), *plain, *groups]


def _interpolation(error: Exception, cfg: DictConfig) -> str:
    key, reason = getattr(error, "full_key", None), _first_line(error)
    leaves = dict(flatten(cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))))
    if match := _NO_TARGET.search(reason):
        near = nearest(match[1], leaves)
        tail = f"; did you mean {near}?" if near else ""
        reason = f"${{{match[1]}}} refers to a key that does not exist{tail}"
    given = f"={show(leaves[key])}" if key in leaves else ""
    return f"{key}{given}: {reason}" if key else reason


def _general(error: Exception, overrides: Sequence[str]) -> str:
    """Return the first line of an error and of what caused it: the others are Hydra's advice."""
    if isinstance(error, OSError):
        what = max(overrides, key=len, default=str(error.filename))
        return f"{brief(what)}: {error.strerror}"
    line, cause = _first_line(error), error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return ": ".join(filter(None, [line, _first_line(cause)]))
    if line.endswith(":") or hasattr(error, "problem_mark"):  # YAML's further lines say where
        line = str(error)
    return line or type(error).__name__


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def _list(names: Iterable[str]) -> str:
    return f"there are: {', '.join(sorted(names))}"
