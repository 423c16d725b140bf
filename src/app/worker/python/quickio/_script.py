"""The application's file: how it is run, and what it consists of."""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType
from typing import List

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def load(script: str) -> None:
    """Runs the file as `python3 FILE` does: as `__main__`, with its folder first among those of modules.

    Not by `runpy`, which takes the module away again: pickle, dataclasses and multiprocessing look for it there. And
    not by a loader, which would keep bytecode, and take that for a file that was changed within the same second.
    """
    sys.path.insert(0, os.path.dirname(script))
    sys.argv = [script]
    with open(script, "rb") as file:
        source = file.read()
    module = ModuleType("__main__")
    module.__file__ = script
    sys.modules["__main__"] = module
    exec(compile(source, script, "exec", dont_inherit=True), module.__dict__)


def files(script: str) -> List[str]:
    """The script, and the modules that were loaded from its folder; not what is installed below it."""
    folder = os.path.join(os.path.dirname(script), "")
    found = {script}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and _is_own(os.path.abspath(path), folder):
            found.add(os.path.abspath(path))
    return sorted(found)


def failure(error: BaseException, script: str) -> str:
    """Why the application cannot run, in a line."""
    if isinstance(error, SystemExit):
        return f"the script has ended by itself: exit({'' if error.code is None else repr(error.code)})"
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text if isinstance(error, SyntaxError) else text + _place(error, script)


def _is_own(path: str, folder: str) -> bool:
    is_installed = any(part in path[len(folder) - 1 :] for part in _INSTALLED)
    return path.startswith(folder) and not is_installed and os.path.dirname(path) != _PACKAGE


def _place(error: BaseException, script: str) -> str:
    """The line of the script's folder in which it happened."""
    folder = os.path.join(os.path.dirname(script), "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename, folder):
            return f" ({os.path.relpath(frame.filename, folder)}, line {frame.lineno})"
    return ""
