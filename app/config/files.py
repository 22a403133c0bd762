"""What Jupyter's config folders hold of a section, in two layers.

jupyter_server keeps a section in the user's own config folder (which it writes) and reads it from
all of Jupyter's config folders. Here a row stands in the place of the one file that jupyter_server
would write; everything else is read as jupyter_server reads it, and nothing is written.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_config_dir, jupyter_config_path
from jupyter_server.config_manager import BaseJSONConfigManager

from app.errors import BadRequestError

_FOLDER = "serverconfig"


@dataclass(frozen=True)
class SectionFiles:
    """A section as files have it.

    `below` and `above`: what folders of less and of more weight than the user's say; `defaults`:
    the `{section}.d` folder of the user's; `own`: that and the user's own file.
    """

    below: dict[str, Any]
    above: dict[str, Any]
    defaults: dict[str, Any]
    own: dict[str, Any]

    def merged(self, row: dict[str, Any] | None) -> dict[str, Any]:
        """Return the section as clients read it; `row` takes the place of the user's own file."""
        return updated(updated(self.below, self.users(row)), self.above)

    def users(self, row: dict[str, Any] | None) -> dict[str, Any]:
        """Return the user's layer: what changes are applied to."""
        return updated(self.defaults, self.own if row is None else row)

    def to_store(self, section: dict[str, Any]) -> dict[str, Any]:
        """Return what a row must hold so that the user's layer is `section`."""
        try:
            return _without(section, self.defaults)
        except RecursionError as error:
            raise BadRequestError("The section is nested too deeply") from error


def read_section(name: str) -> SectionFiles:
    """Read a section's files; blocks. What is no JSON object counts as empty."""
    own_folder = Path(jupyter_config_dir()) / _FOLDER
    below: dict[str, Any] = {}
    above: dict[str, Any] = {}
    folders = [Path(folder) / _FOLDER for folder in jupyter_config_path()]
    place = folders.index(own_folder) if own_folder in folders else -1
    for number, folder in reversed(list(enumerate(folders))):
        section = _read(folder, name, include_root=True)
        if number > place:
            below = updated(below, section)
        elif number < place:
            above = updated(above, section)
    defaults = _read(own_folder, name, include_root=False)
    return SectionFiles(below, above, defaults, _read(own_folder, name, include_root=True))


def _read(folder: Path, name: str, *, include_root: bool) -> dict[str, Any]:
    manager = BaseJSONConfigManager(config_dir=str(folder))
    try:
        found: dict[str, Any] = manager.get(name, include_root=include_root)
    except (OSError, ValueError, AttributeError, TypeError):  # unreadable, not an object
        return {}
    return found


def updated(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `section` with `changes` applied, as Jupyter does: deeply, null deletes.

    Raises BadRequestError when it is nested too deeply.
    """
    try:
        return _merged(_merged({}, section), changes)
    except RecursionError as error:
        raise BadRequestError("The section is nested too deeply") from error


def _merged(section: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """As jupyter_server, which fails where an object takes the place of something else."""
    result = dict(section)
    for key, value in changes.items():
        if isinstance(value, dict):
            below = result.get(key)
            merged = _merged(below if isinstance(below, dict) else {}, value)
            if merged:
                result[key] = merged
            else:
                result.pop(key, None)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def _without(section: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return a section without what `defaults` says already, and without what is empty then."""
    result: dict[str, Any] = {}
    for key, value in section.items():
        default = defaults.get(key)
        if isinstance(value, dict):
            left = _without(value, default if isinstance(default, dict) else {})
            if left:
                result[key] = left
        elif value is not None and (key not in defaults or value != default):
            result[key] = value
    return result
