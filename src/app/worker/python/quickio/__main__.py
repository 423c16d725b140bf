"""`python3 -u .../quickio/__main__.py`: how the server starts a worker."""

import os
import sys


def main():  # type: ignore
    """Runs the script that the server names, and serves it."""
    if "QUICKIO_WORKER" not in os.environ:
        sys.exit("quickio: the server starts this: quickio --app FILE.py")
    # Python has put here where it was started, which is the server's business. The script's folder takes its place.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    from quickio import _worker, app

    _worker.run(app, int(os.environ["QUICKIO_WORKER"]))


if __name__ == "__main__":
    main()  # type: ignore
