"""The source files of the library."""

import ast
import glob
import json
import os
import socket
import subprocess
import sys

from support import DEADLINE_SECONDS, LIBRARY, Case


class Source(Case):
    def sources(self):
        paths = glob.glob(os.path.join(LIBRARY, "quickio", "*.py"))
        self.assertGreater(len(paths), 10)
        for path in paths:
            with open(path, encoding="utf-8") as file:
                yield os.path.basename(path), file.read()

    def test_files_are_valid_python_3_9(self):
        for name, text in self.sources():
            ast.parse(text, name, feature_version=(3, 9))

    def test_the_first_files_parse_on_older_pythons(self):
        for name, text in self.sources():
            if name in ("__init__.py", "__main__.py", "_old.py"):
                ast.parse(text, name, feature_version=(3, 4))
                self.assertNotIn("import annotations", text)
                self.assertNotRegex(text, r"\bf['\"]|[^\x00-\x7f]")

    def test_lines_have_at_most_120_columns(self):
        for name, text in self.sources():
            for number, line in enumerate(text.splitlines(), 1):
                self.assertLessEqual(len(line), 120, f"{name}:{number}")

    def test_an_old_python_reports_the_required_version(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(DEADLINE_SECONDS)
            environment = {**os.environ, "PYTHONPATH": LIBRARY, "QUICKIO_WORKER": str(theirs.fileno())}
            command = [sys.executable, "-c", "from quickio import _old; _old.refuse()"]
            done = subprocess.run(command, env=environment, pass_fds=[theirs.fileno()], timeout=DEADLINE_SECONDS)
            self.assertEqual(done.returncode, 1)
            failed = json.loads(ours.recv(10000))["failed"]
            self.assertRegex(failed, "^Python 3.9 or newer is needed, but .* is Python 3")

    def test_without_a_server_the_package_reports_how_to_run_a_script(self):
        environment = {**os.environ, "PYTHONPATH": LIBRARY}
        environment.pop("QUICKIO_WORKER", None)
        command = [sys.executable, "-m", "quickio"]
        done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, timeout=DEADLINE_SECONDS)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"started by the server", done.stderr)
