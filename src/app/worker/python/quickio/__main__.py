"""The entry point of a worker: the server starts it as `python3 -u .../quickio/__main__.py`."""

import os
import sys


def main():  # type: ignore
    """Loads the script that the server names, and runs the application."""
    if "QUICKIO_WORKER" not in os.environ:
        sys.exit("quickio: this module is started by the server; run `quickio --app FILE.py` instead")
    # Python puts the folder of this file first. That folder belongs to the server; the script's folder replaces it.
    if not getattr(sys.flags, "safe_path", False):
        del sys.path[0]
    from quickio import _worker, app

    _worker.run(app, int(os.environ["QUICKIO_WORKER"]))


if __name__ == "__main__":
    main()  # type: ignore
