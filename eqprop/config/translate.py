"""Hydra's and OmegaConf's errors in one line: the key, what was given, the nearest name."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from eqprop.config.references import bounded
from eqprop.config.schema import known_keys
from eqprop.run.errors import ConfigError
from eqprop.run.text import brief, flatten, hint, nearest, one_line, show

_CIRCLE = "the configuration refers to itself without end: look for ${…} in a circle"
_UNKNOWN = re.compile(r"Could not (?:override|delete|delete from config\.) '([^'=]+)")
_TWICE = re.compile(
    r"(?:Multiple values for|^)\s*([^\s.]+)(?: appears more than once|\. To override)"
)
_SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")
_BAD_OPTION = "Config group override must be"


@contextmanager
def composition(loader: ConfigLoaderImpl, name: str, overrides: Sequence[str]) -> Iterator[None]:
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
    """Turn whatever resolving the configuration raises into a ConfigError; it ends in any case."""
    try:
        with bounded():
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
    return (
        f"{brief(override)}: several values; add -m to run a job for each, "
        "or put a list in brackets: key=[a,b]"
    )


def _line(error: Exception, loader: ConfigLoaderImpl, name: str, overrides: Sequence[str]) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return _syntax(error)
    if isinstance(error, MissingConfigException):
        return _missing(error, overrides)
    if isinstance(error, UserWarning):
        return "hydra.searchpath: there is no " + text.rpartition("path=")[2].split(" is not")[0]
    if match := _SEVERAL.search(text):
        return several(match[1])
    if match := _TWICE.search(text):
        return f"{match[1]}: chosen twice; write {match[1]}=OPTION, without +"
    if text.startswith(_BAD_OPTION):
        return _bad_option(loader, overrides)
    match = _UNKNOWN.search(text)
    given = _given(match[1], overrides) if match else None
    if match and given is not None:
        key = match[1]
        return (
            f"{brief(given)}: unknown key '{key}'{hint(key, _keys(loader, name, overrides, key))}"
        )
    return _general(error, overrides)


def _syntax(error: OverrideParseException) -> str:
    given = brief(error.override)
    if "=" not in error.override and not error.override.startswith("~"):
        return f"{given}: missing '='; write {given}=VALUE"
    reason = str(error.message).strip().splitlines()[0]
    reason = "an unexpected character" if "LexerNoViableAlt" in reason else brief(reason)
    return f"{given}: cannot be read ({reason}); put text with special characters in quotes"


def _missing(error: MissingConfigException, overrides: Sequence[str]) -> str:
    missing = error.missing_cfg_file
    if missing is None:
        return str(error)
    group, _, option = missing.rpartition("/")
    for override in overrides:
        key = override.lstrip("+").split("=", 1)[0].partition("@")[0]
        if missing.startswith(f"{key}/"):
            group, option = key, missing[len(key) + 1 :]
    if not group or error.options is None:
        return f"there is no configuration file '{missing}' in the search path"
    near = nearest(option, error.options)
    tail = f"; did you mean {near}?" if near else ""
    given = f"{group}={brief(option)}"
    return f"{given}: no such option of {group}{tail} (there are: {_list(error.options)})"


def _bad_option(loader: ConfigLoaderImpl, overrides: Sequence[str]) -> str:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        group = override.key_or_group
        if loader.repository.group_exists(group) and not isinstance(override.value(), (str, list)):
            options = _list(loader.get_group_options(group))
            return f"{override.input_line}: must be the name of an option (there are: {options})"
    return "a group must be given the name of one of its options"


def _given(key: str, overrides: Sequence[str]) -> str | None:
    for override in overrides:
        if override.lstrip("+~").split("=", 1)[0] == key:
            return override
    return None


def _keys(loader: ConfigLoaderImpl, name: str, overrides: Sequence[str], unknown: str) -> list[str]:
    """Return the keys that exist under the options chosen, and the groups."""
    chosen = [
        override.input_line
        for override in OverridesParser.create().parse_overrides(list(overrides))
        if not override.is_sweep_override()
        and override.key_or_group != unknown
        and ("." not in override.key_or_group or override.key_or_group.startswith("hydra."))
    ]
    for attempt in (chosen, []):
        try:
            cfg = loader.load_configuration(name, cast("list[str]", attempt), RunMode.RUN)
        except Exception:
            continue
        plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
        hydra = plain.pop("hydra", {})
        wanted = {"hydra": hydra} if unknown.startswith("hydra.") else plain
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        keys = [*(key for key, _ in flatten(wanted)), *wanted, *groups]
        # of a group that is mistyped, every option's keys may be meant, not the chosen one's only
        return keys if unknown.rpartition(".")[0] in wanted else [*keys, *known_keys()]
    return []


def _interpolation(error: Exception, cfg: DictConfig) -> str:
    key = getattr(error, "full_key", None)
    reason = _first_line(error)
    plain = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=False))
    leaves = dict(flatten(plain))
    if match := re.search(r"Interpolation key '([^']+)' not found", reason):
        near = nearest(match[1], leaves)
        tail = f"; did you mean {near}?" if near else ""
        reason = f"${{{match[1]}}} refers to a key that does not exist{tail}"
    if not key:
        return reason
    return f"{key}={show(leaves[key])}: {reason}" if key in leaves else f"{key}: {reason}"


def _general(error: Exception, overrides: Sequence[str]) -> str:
    """Return the first line of an error and of what caused it: the others are Hydra's advice."""
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return f"{brief(max(overrides, key=len, default=''))}: the name is too long"
    if isinstance(error, OSError):
        return f"{error.strerror}: {brief(str(error.filename))}"
    line = _first_line(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        line = f"{line}: {_first_line(cause)}" if line else _first_line(cause)
    elif line.endswith(":") or hasattr(
        error, "problem_mark"
    ):  # the point follows; YAML's has the place
        line = str(error)
    return line or type(error).__name__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""


def _list(names: Sequence[str]) -> str:
    return ", ".join(sorted(names))
