"""Hydra's and OmegaConf's errors in one line: the key, what was given, the nearest name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from eqprop.config.explain import meant
from eqprop.run.errors import ConfigError
from eqprop.run.text import brief, flatten, hint, key_of, one_line, show

_CIRCLE = "the configuration refers to itself without end: look for ${…} in a circle"
_UNKNOWN = re.compile(r"Could not (?:override|delete|delete from config\.) '([^'=]+)")
_TWICE = re.compile(r"(?:Multiple values for|^)\s*([^\s.]+)(?: appears more|\. To override)")
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")
_EXISTS = re.compile(r"Could not append to config\. An item is already at '([^']+)'")
_NOT_THERE = re.compile(r"In '([^']+)': Could not override '([^'@]+)")
_NO_TARGET = re.compile(r"Interpolation key '([^']+)' not found")


@contextmanager
def composition(loader: ConfigLoader, name: str, overrides: Sequence[str]) -> Iterator[None]:
    """Turn whatever composing `overrides` on the configuration `name` raises into a ConfigError."""
    try:
        yield
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


def _line(error: Exception, loader: ConfigLoader, name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _syntax(error)
    if isinstance(error, MissingConfigException):
        return _missing(error, overrides)
    if match := _SEVERAL.search(text):
        how = "add -m to run a job for each, or put a list in brackets: key=[a,b]"
        return f"{brief(match[1])}: several values; {how}"
    if match := _TWICE.search(text):
        return f"{match[1]}: chosen twice; write {match[1]}=OPTION, without +"
    if match := _EXISTS.search(text):
        given = next((o for o in overrides if key_of(o) == match[1]), f"+{match[1]}=VALUE")
        return f"{brief(given)}: exists already; leave out the +: {brief(given.lstrip('+'))}"
    if match := _NOT_THERE.search(text):
        return _not_overridden(loader, match[1], match[2])
    if text.startswith("Config group override must be"):
        return _bad_option(loader, overrides)
    match = _UNKNOWN.search(text)
    for override in overrides:
        if match and override.lstrip("+~").split("=", 1)[0] == match[1]:
            keys = _keys(loader, name, overrides, match[1])
            return _unknown(override, match[1], keys)
    return _general(error)


def _unknown(override: str, key: str, keys: Sequence[str]) -> str:
    value = OverridesParser.create().parse_override(override).value()
    for leaf, given in flatten(value, f"{key}.") if isinstance(value, Mapping) else ():
        if leaf not in keys and any(known.startswith(f"{key}.") for known in keys):
            return f"{leaf}={show(given)}: unknown key '{leaf}'{hint(leaf, keys)}"
    line = f"{brief(override)}: unknown key '{key}'{hint(key, keys)}"
    group = key.partition(".")[0]
    if f"{group}._target_" in keys and key.count(".") == 1 and "did you mean" not in line:
        line += f"; or write +{override.lstrip('+')}, if its class takes it"
    return line


def _not_overridden(loader: ConfigLoader, file: str, group: str) -> str:
    if group == "debug":
        return f"{file}: debug is chosen on the command line only, as in debug=limit"
    groups = [name for name in loader.list_groups("") if name != "hydra"]
    where = "" if group in groups else f": there is no group {group}{meant(group, groups)}"
    return f"{file}: cannot override /{group}{where or '; it is chosen before this file is read'}"


def refuse_none(loader: ConfigLoader, overrides: Sequence[str]) -> None:
    """Raise ConfigError for Python's word where YAML's is meant: it would be a text."""
    for override in overrides:
        key, _, value = override.partition("=")
        if value == "None" and "none" not in loader.get_group_options(key_of(override)):
            raise ConfigError(f"{brief(override)}: None is a text here; write {key}=null")


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
    tail = f"{meant(option, options)} ({_list(options)})"
    return f"{group}={brief(option)}: no such option of {group}{tail}"


def _bad_option(loader: ConfigLoader, overrides: Sequence[str]) -> str:
    for override in overrides:
        options = loader.get_group_options(key_of(override))
        if options and override.partition("=")[2] not in options:
            return f"{brief(override)}: must be the name of an option ({_list(options)})"
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
        missing = f"${{{match[1]}}} refers to a key that does not exist"
        reason = missing + meant(match[1], leaves)
    given = f"={show(leaves[key])}" if key in leaves else ""
    return f"{key}{given}: {reason}" if key else reason


def _general(error: Exception) -> str:
    """Return the first line of an error and of what caused it: the others are Hydra's advice."""
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
