"""The application's script: how it is loaded, and which files it consists of."""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType
from typing import List, Optional, Set

from quickio._report import safe_name, safe_text

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# The most files that a report of a failure names. They have to fit into one line of the control socket.
FILES_MAX = 1000
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def load(script: str) -> None:
    """Runs the script as `python3 FILE` does: as `__main__`, with its folder first on the module path.

    `runpy` is not used because it removes the module afterwards; pickle, dataclasses and multiprocessing need it. A
    module loader is not used because it caches bytecode, and does not notice a file that changed within one second.
    """
    sys.path.insert(0, os.path.dirname(script))
    sys.argv = [script]
    with open(script, "rb") as file:
        source = file.read()
    module = ModuleType("__main__")
    module.__file__ = script
    sys.modules["__main__"] = module
    exec(compile(source, script, "exec", dont_inherit=True), module.__dict__)


def source_files(script: str) -> List[str]:
    """Returns the script and the modules loaded from its folder, except packages installed below that folder."""
    folder = os.path.join(os.path.dirname(script), "")
    found = {script}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and _is_own(os.path.abspath(path), folder):
            found.add(os.path.abspath(path))
    return sorted(found)


def files_of_failure(error: BaseException, script: str) -> List[str]:
    """Returns the files to which a change may remove an error: those that were loaded, those that the error names, and
    those that a missing module could have."""
    folder = os.path.join(os.path.dirname(script), "")
    found = set(source_files(script))
    seen: Set[int] = set()
    cause: Optional[BaseException] = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        named = [frame.filename for frame in traceback.extract_tb(cause.__traceback__)]
        if isinstance(cause, SyntaxError) and isinstance(cause.filename, str):
            named.append(cause.filename)
        if isinstance(cause, ModuleNotFoundError) and isinstance(cause.name, str):
            module = cause.name.replace(".", os.sep)
            for place in map(str, sys.path):
                named += [os.path.join(place, f"{module}.py"), os.path.join(place, module, "__init__.py")]
        found.update(path for path in map(os.path.abspath, named) if _is_own(path, folder))
        cause = cause.__cause__ or cause.__context__
    return sorted(found)[:FILES_MAX]


def describe_failure(error: BaseException, script: str) -> str:
    """Returns one line on why the application cannot run."""
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"the script called exit({code}); only the server may end a worker"
    message, name = safe_text(error), safe_name(error)
    text = f"{name}: {message}" if message else name
    return text if isinstance(error, SyntaxError) else text + _location(error, script)


def check_not_patched() -> None:
    """Raises if a library for green threads has replaced what this library is made of: the application would hang."""
    for library, module, function in (
        ("gevent", "gevent.monkey", "is_module_patched"),
        ("eventlet", "eventlet.patcher", "is_monkey_patched"),
    ):
        is_patched = getattr(sys.modules.get(module), function, None)
        if is_patched is not None and any(map(is_patched, _PATCHED.get(library, ()))):
            raise RuntimeError(
                f"{library} has patched the standard library, and a worker cannot run with that: do not patch socket, "
                "select, thread or time; use async functions, or plain functions, which run on threads"
            )


_PATCHED = {
    "gevent": ("socket", "select", "thread", "threading", "time", "selectors"),
    "eventlet": ("socket", "select", "thread", "time"),
}


def _is_own(path: str, folder: str) -> bool:
    is_installed = any(part in path[len(folder) - 1 :] for part in _INSTALLED)
    return path.startswith(folder) and not is_installed and os.path.dirname(path) != _PACKAGE


def _location(error: BaseException, script: str) -> str:
    """Returns the innermost line of the application that raised the error."""
    folder = os.path.join(os.path.dirname(script), "")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_own(frame.filename, folder):
            return f" ({os.path.relpath(frame.filename, folder)}, line {frame.lineno})"
    return ""
