"""Contexts: each function of the application runs in a context of its own.

The context is a copy of the one that the script and its start functions have left. What a function sets in a context
variable or in its decimal context is not seen by other functions.
"""

from __future__ import annotations

import contextvars
import sys
from typing import Any, Optional


class BaseContext:
    """The context of the script and of its start functions, from which the contexts of all functions are copied."""

    __slots__ = ("_context", "_decimal", "_set_decimal")

    def __init__(self) -> None:
        """Keeps the context of the caller."""
        # The variable of `decimal` has an object that can be changed. A copy of the context would share it.
        decimal = sys.modules.get("decimal")
        self._decimal: Optional[Any] = None if decimal is None else decimal.getcontext().copy()
        self._set_decimal: Any = None if decimal is None else decimal.setcontext
        self._context = contextvars.copy_context()

    def copy(self) -> contextvars.Context:
        """Returns a new context."""
        return self._context.copy()

    def renew_decimal(self) -> None:
        """Gives the present context a decimal context of its own."""
        if self._decimal is not None:
            self._set_decimal(self._decimal.copy())
