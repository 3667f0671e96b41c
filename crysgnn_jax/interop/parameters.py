"""What scikit-learn asks of an estimator, without scikit-learn."""

import inspect
from typing import Any

from crysgnn_jax.errors import UserError


class Parameters:
    """The parameters of a class are the arguments of its constructor, kept under their names."""

    @classmethod
    def _parameter_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; there are none within them, so that ``deep`` changes nothing."""
        return {name: getattr(self, name) for name in self._parameter_names()}

    def set_params(self, **params: Any) -> Any:
        """Change parameters, and return the same object.

        Raises:
          UserError: there is no such parameter.
        """
        known = self._parameter_names()
        for name, value in params.items():
            if name not in known:
                raise UserError(
                    f"`{name}`: there is no such parameter; there is {', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        shown = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"
