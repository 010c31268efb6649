"""Imports of single modules from packages whose `__init__` imports everything they have.

`import pyroute2` loads 340 modules, sqlite3, http.server and unittest among them, and `import pystemd` loads
lxml: 30 MB and 150 ms for what is never used here. A package that is known without having been executed
gives its modules all the same. Seen to work with pyroute2 0.7.2 and 0.7.7 and pystemd 0.11 and 0.13 (Debian
12 and 13).
"""

from __future__ import annotations

import importlib.util
import sys


def skip_init(package: str) -> None:
    """Make `package` importable piecewise: `from package.module import …` will not run
    `package/__init__.py`.

    Raises ModuleNotFoundError where it is not installed; does nothing where it was imported in full before.
    """
    if package in sys.modules:
        return
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)
