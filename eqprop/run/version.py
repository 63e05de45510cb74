"""The package's version, where the build and every module find it."""

__version__ = "0.1.0"
