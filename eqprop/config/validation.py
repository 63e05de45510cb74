"""From plain values to the typed configuration, or to one line on the first mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pydantic import ValidationError

from eqprop.config import explain, translate
from eqprop.config.rules import broken_rules
from eqprop.config.schema import Config
from eqprop.run.errors import ConfigError
from eqprop.run.text import flatten, one_line


def validate(cfg: Mapping[Any, Any]) -> Config:
    """Check a resolved configuration, without Hydra's own part, and return it typed.

    Raises:
        ConfigError: one line with the key, the value, what is allowed and the nearest name: the
            first mistake, and how many more there are.
    """
    given = {str(key): value for key, value in cfg.items()}
    keys = [*Config.model_fields, *(key for key, _ in flatten(given))]
    try:
        config = Config.model_validate(given, context=keys)
    except ValidationError as error:
        found = [line for _, line in explain.lines(Config, "", given, error, lambda: keys)]
    else:
        found = list(broken_rules(config))
        if not found:
            return config
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    raise ConfigError(one_line(found[0]) + more)


def validate_composed(cfg: DictConfig) -> Config:
    """Resolve a composed configuration and validate it; Hydra's own part, if there, is left out.

    Raises:
        ConfigError: one line on the first mistake, a broken interpolation or an unset key included.
    """
    return validate(resolved(cfg))


def resolved(cfg: DictConfig, throw_on_missing: bool = True) -> dict[Any, Any]:
    """Return plain, resolved values; Hydra's own part, if there, is left out.

    Raises:
        ConfigError: as ``validate_composed``, of a broken interpolation or an unset key.
    """
    ours = cfg
    if "hydra" in cfg:
        ours = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    with translate.resolution(ours):
        plain = OmegaConf.to_container(ours, resolve=True, throw_on_missing=throw_on_missing)
    return cast("dict[Any, Any]", plain)
