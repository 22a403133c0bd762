"""Where the front ends' files are: JupyterLab, its prebuilt extensions, Jupyter Notebook.

They are what the installed wheels brought, and are served as they are. Nothing here knows HTTP,
and everything here reads the disk: call it in a thread.
"""

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from jupyter_core.paths import jupyter_path
from jupyter_server import DEFAULT_STATIC_FILES_PATH

from app.errors import NotFoundError

# A part of the name that changes with the content, as webpack makes it.
_HASHED = re.compile(r"(?:^|\.)[0-9a-f]{16,32}\.\w+$")
# What this project adds to the front ends: files of no build, in the shape of an extension.
_OWN_EXTENSIONS = Path(__file__).parent / "extensions"
_CSS_URL = re.compile(r"""url\((['"])(?!/|#|\w+:)(.*?)\1\)""")


@dataclass(frozen=True)
class Assets:
    """The folders of the front ends that are installed; `lab` and `notebook` may be missing."""

    lab: Path | None
    notebook: Path | None
    extensions: tuple[Path, ...]

    def static_file(self, path: str) -> Path:
        """Return the file of `/static/{path}`; NotFoundError (404) when there is none."""
        first, _, rest = path.partition("/")
        if first == "lab" and self.lab is not None:
            return _inside(self.lab / "static", rest)
        if first == "notebook" and self.notebook is not None:
            return _inside(self.notebook / "static", rest)
        return _inside(Path(DEFAULT_STATIC_FILES_PATH), path)

    def extension_file(self, path: str) -> Path:
        """Return the file of `/lab/extensions/{path}` from the first folder that has it.

        `jupyter labextension develop` links an extension's folder to where it is built.
        """
        for folder in self.extensions:
            file = _plain(folder, path)
            if file is not None and file.is_file():
                return file
        raise NotFoundError(f"No installed extension has {path!r}")

    def theme_file(self, path: str) -> Path:
        """Return the file of `/lab/api/themes/{path}`: an extension's theme, else Lab's own."""
        for folder in self.extensions:
            for themes in sorted(folder.glob("*/themes")) + sorted(folder.glob("@*/*/themes")):
                file = _plain(themes, path)
                if file is not None and file.is_file():
                    return file
        if self.lab is None:
            raise NotFoundError("JupyterLab is not installed")
        return _inside(self.lab / "themes", path)

    @property
    def extension_paths(self) -> list[str]:
        """The folders as jupyterlab_server's functions take them."""
        return [str(folder) for folder in self.extensions]


def find_assets() -> Assets:
    """Return what is installed for this Python and on Jupyter's data path."""
    own = os.environ.get("JUPYTERLAB_DIR")
    places = [Path(own)] if own else []
    places += [Path(folder) for folder in jupyter_path("lab")]
    lab = next((place for place in places if (place / "static" / "index.html").is_file()), None)
    spec = find_spec("notebook")
    notebook = Path(spec.origin).parent if spec and spec.origin else None
    if notebook is not None and not (notebook / "templates" / "tree.html").is_file():
        notebook = None  # older than 7
    extensions = [Path(folder) for folder in jupyter_path("labextensions")]
    return Assets(lab, notebook, (*extensions, _OWN_EXTENSIONS))


def is_immutable(file: Path) -> bool:
    """Tell whether a file's name changes when its content does."""
    return _HASHED.search(file.name) is not None


def theme_css(file: Path, folder_url: str) -> str:
    """Return a theme's stylesheet with its relative URLs below `folder_url`.

    The front end puts it into the page, so they would be relative to that.
    """
    css = file.read_text("utf-8")
    return _CSS_URL.sub(lambda found: f"url({found[1]}{folder_url}/{found[2]}{found[1]})", css)


def _plain(folder: Path, path: str) -> Path | None:
    """Return the path below the folder, or None for one that would lead out of it."""
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or "\\" in part for part in parts):
        return None
    return folder.joinpath(*parts)


def _inside(folder: Path, path: str) -> Path:
    """Return a file of the folder, out of which links may not lead; NotFoundError otherwise."""
    try:
        file = (folder / path).resolve()
        if _plain(folder, path) and file.is_relative_to(folder.resolve()) and file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):  # too long, a loop of links
        pass
    raise NotFoundError(f"There is no file {path!r}")
