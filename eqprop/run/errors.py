"""Errors that a person can mend: each is one line that says what, where and what to do."""

from __future__ import annotations

TRACEBACK = "EQPROP_TRACEBACK"
"""Set where the user asked for tracebacks: the command sets HYDRA_FULL_ERROR itself."""


class UserError(Exception):
    """A mistake in the command, the configuration or the files; its text is one line."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration is wrong: names key, value, what is allowed and the nearest name."""


class DataError(UserError):
    """A data file is missing, truncated, or not what it claims to be: names the file."""


class RunError(UserError):
    """A run that began correctly could not go on: names the step and what to change."""

    exit_code = 1
