"""Packages that few need, and which are therefore not installed with this one."""

import importlib
import importlib.util
from types import ModuleType

from crysgnn_jax.errors import UserError


def require(module: str, extra: str, what: str) -> None:
    """Check that a package is there, before the work that ends with it.

    Args:
      module: that it is imported as.
      extra: of this package, which installs it.
      what: what it is for, such as ``--projection umap``.

    Raises:
      UserError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{what} needs {module}; install it by pip install 'crysgnn-jax[{extra}]'")


def imported(module: str, extra: str, what: str) -> ModuleType:
    """The package; arguments and error as of `require`."""
    require(module, extra, what)
    return importlib.import_module(module)
