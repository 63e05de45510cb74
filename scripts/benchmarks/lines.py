"""How large the package is, and whether its imports go in circles.

python scripts/benchmarks/lines.py
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from eqprop.run.streams import exit_cleanly

PACKAGE = Path(__file__).resolve().parents[2] / "eqprop"
CORE = ("network", "relaxation", "estimator")


def lines(folder: Path, *suffixes: str) -> int:
    """Lines of all files below ``folder`` whose names end so."""
    files = (path for suffix in suffixes for path in folder.rglob(f"*{suffix}"))
    return sum(len(path.read_bytes().splitlines()) for path in files)


def imports() -> dict[str, set[str]]:
    """Module → the modules of the package that it imports, anywhere in it, for types only too."""
    paths = {_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                longer = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= longer if longer <= paths.keys() else (longer | {node.module})
        found[module] = (names & paths.keys()) - {module}
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, the first again at the end; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> None:
    packages = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file())
    print(f"{lines(PACKAGE, '.py'):6} lines of Python in eqprop/")
    print(f"{sum(lines(PACKAGE / name, '.py') for name in CORE):6} of them in {' + '.join(CORE)}")
    for name in packages:
        print(f"{lines(PACKAGE / name, '.py'):6}   {name}/")
    print(f"{len(list(PACKAGE.glob('*.py'))):6} modules directly in eqprop/")
    print(f"{lines(PACKAGE, '.js', '.css'):6} lines of JavaScript and CSS")
    print(f"import circles: {' -> '.join(circle(imports())) or 'none'}")


if __name__ == "__main__":
    exit_cleanly(main)
