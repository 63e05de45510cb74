"""What griffe calls while it reads the package: signatures and docstrings as pages show them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Bare(griffe.Extension):
    """``Annotated[float, Gt(0), Doc("step size")]`` is shown as ``float``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Sphinx's roles and literal blocks become Markdown's."""
        if obj.docstring is not None:
            text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = re.sub(r"::(?=\n\n    )", ":", text)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        for parameter in func.parameters:
            parameter.annotation = bare(parameter.annotation)


def bare(annotation: Any) -> Any:
    """An annotation without ranges and descriptions, in all its parts."""
    if isinstance(annotation, griffe.ExprSubscript) and str(annotation.left) == "Annotated":
        inner = annotation.slice
        return bare(inner.elements[0] if isinstance(inner, griffe.ExprTuple) else inner)
    if isinstance(annotation, griffe.ExprBinOp):
        annotation.left, annotation.right = bare(annotation.left), bare(annotation.right)
    return annotation
