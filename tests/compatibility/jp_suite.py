"""Run Jupyter Server's own API tests against this server.

    python tests/compatibility/jp_suite.py CHECKOUT [pytest's arguments]

CHECKOUT holds jupyter_server's sources (a clone, or an unpacked sdist). Its tests are copied to a
temporary folder, where our fixtures (jp_plugin.py) take the place of the stock server's. Needs
`pip install pytest-jupyter pytest-timeout pytest-console-scripts`. Prints a table of what passed.
"""

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_REPOSITORY = _HERE.parents[1]
# What speaks HTTP; the rest tests the stock server's classes.
_API_TESTS = (
    "tests/services/api/test_api.py",
    "tests/services/config/test_api.py",
    "tests/services/contents/test_api.py",
    "tests/services/events/test_api.py",
    "tests/services/kernels/test_api.py",
    "tests/services/kernelspecs/test_api.py",
    "tests/services/nbconvert/test_api.py",
    "tests/services/sessions/test_api.py",
    "tests/nbconvert/test_handlers.py",
    "tests/auth/test_login.py",
    "tests/auth/test_identity.py",
    "tests/test_files.py",
    "tests/test_terminal.py",
    "tests/test_view.py",
)
_INI = """[pytest]
asyncio_mode = strict
timeout = 60
markers = integration_test
    flaky
"""


def run(checkout: Path, arguments: list[str]) -> int:
    """Run the suite; returns pytest's exit status."""
    with tempfile.TemporaryDirectory(prefix="jp-suite-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(checkout / "tests", folder / "tests")
        with (folder / "tests" / "conftest.py").open("a") as file:
            file.write("\nfrom jp_plugin import *  # noqa: F403\n")
            file.write("from jp_plugin import _database_first  # noqa: F401\n")
        (folder / "pytest.ini").write_text(_INI)
        report = folder / "report.xml"
        paths = [os.fspath(_REPOSITORY), os.fspath(_HERE), os.environ.get("PYTHONPATH", "")]
        chosen = [a for a in arguments if a.startswith("tests/")] or list(_API_TESTS)
        rest = [a for a in arguments if not a.startswith("tests/")]
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "no:schemathesis", "-p", "no:hypothesispytest"]
        command += ["--tb=native", f"--junitxml={report}", *rest, *chosen]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        if report.exists():
            print(table(report))  # noqa: T201
        return done.returncode


def table(report: Path) -> str:
    """Return counts per module, and each test that failed or was skipped with its reason."""
    counts: dict[str, collections.Counter[str]] = {}
    notes: dict[tuple[str, str, str], int] = collections.Counter()
    for case in ET.parse(report).iter("testcase"):
        module = case.get("classname", "")
        outcome, reason = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                outcome = "skipped" if child.tag == "skipped" else "failed"
                reason = (child.get("message") or "").splitlines()[0][:150]
        counts.setdefault(module, collections.Counter())[outcome] += 1
        if outcome != "passed":
            plain = re.sub(r"\[.*", "", case.get("name", ""))
            notes[outcome, f"{module}::{plain}", reason] += 1
    lines = ["| module | passed | failed | skipped |", "|---|---|---|---|"]
    total: collections.Counter[str] = collections.Counter()
    for module, counted in sorted(counts.items()):
        total += counted
        numbers = " | ".join(str(counted[k]) for k in ("passed", "failed", "skipped"))
        lines.append(f"| {module} | {numbers} |")
    numbers = " | ".join(str(total[k]) for k in ("passed", "failed", "skipped"))
    lines += [f"| all | {numbers} |", ""]
    for (outcome, test, reason), count in sorted(notes.items()):
        lines.append(f"{outcome} x{count} {test}: {reason}")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(run(Path(sys.argv[1]).resolve(), sys.argv[2:]))
