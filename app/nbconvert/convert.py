"""nbconvert as a library: which exporters there are, and running one. All of it blocks."""

import io
import logging
import posixpath
import warnings
import zipfile
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import entry_points
from typing import Any

import nbformat
from jupyter_core.paths import jupyter_config_dir
from nbconvert.exporters import base
from nbconvert.exporters.base import ExporterDisabledError, ExporterNameError
from nbconvert.utils.exceptions import ConversionException
from nbconvert.utils.pandoc import PandocMissing

from app.errors import BadRequestError, DomainError, NotFoundError

log = logging.getLogger(__name__)


class MissingProgramError(DomainError):
    """A format needs a program that is not installed here."""

    status = 501


@dataclass(frozen=True)
class Converted:
    """A converted notebook: its bytes, media type and file name; a zip if it has resources."""

    content: bytes
    media_type: str | None
    filename: str
    is_zip: bool = False


@dataclass(frozen=True)
class Source:
    """A notebook to convert; `folder` is where its files are, None for one that was sent."""

    notebook: dict[str, Any]
    name: str
    modified: datetime | None = None
    folder: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def exporters() -> dict[str, dict[str, str]]:
    """Return the formats that there are, with their media types."""
    found = {}
    for name in _names():
        try:
            exporter = _class(name)
        except (ValueError, ExporterNameError, ExporterDisabledError):
            continue  # uninstalled meanwhile
        found[name] = {"output_mimetype": exporter.output_mimetype}
    return found


def convert(format_name: str, source: Source) -> Converted:
    """Convert a notebook.

    NotFoundError for an unknown format, MissingProgramError for a missing program,
    BadRequestError when nbconvert cannot convert this notebook.
    """
    exporter = _exporter(format_name, source.options)
    title = posixpath.splitext(source.name)[0]
    metadata: dict[str, Any] = {"name": title}
    if source.modified is not None:
        metadata["modified_date"] = source.modified.strftime("%B %-d, %Y")
    if source.folder is not None:
        metadata["path"] = source.folder
    resources: dict[str, Any] = {"metadata": metadata, "config_dir": jupyter_config_dir()}
    node = nbformat.from_dict(source.notebook)  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            output, resources = exporter.from_notebook_node(node, resources=resources)
    except (PandocMissing, OSError, ImportError) as error:
        raise MissingProgramError(f"nbconvert failed: {error}") from error
    except ConversionException as error:
        raise BadRequestError(f"nbconvert failed: {error}") from error
    except Exception as error:
        log.info("nbconvert to %s", format_name, exc_info=True)
        raise BadRequestError(f"nbconvert failed: {error!r}") from error
    content = output if isinstance(output, bytes) else str(output).encode("utf-8", "replace")
    filename = title + str(resources["output_extension"])
    if files := resources.get("outputs"):
        return Converted(
            _zipped(filename, content, files), "application/zip", f"{title}.zip", is_zip=True
        )
    return Converted(content, exporter.output_mimetype or None, filename)


def _names() -> list[str]:
    # Not nbconvert's get_export_names, which makes one of each: `_class` refuses what is disabled.
    return sorted(entry.name for entry in entry_points(group="nbconvert.exporters"))


def _class(name: str) -> Any:
    return base.get_exporter(name)  # type: ignore[no-untyped-call]


def _exporter(name: str, options: dict[str, Any]) -> Any:
    # nbconvert would import whatever class a dotted name stands for.
    if not name.isidentifier() or name not in _names():
        raise NotFoundError(f"No exporter for format: {name}")
    try:
        try:
            kind = _class(name)
        except (ExporterNameError, ValueError) as error:  # disabled, or uninstalled meanwhile
            raise NotFoundError(f"No exporter for format: {name}") from error
        return kind(**options)
    except (OSError, ImportError) as error:
        raise MissingProgramError(f"Could not construct Exporter: {error}") from error


def _zipped(filename: str, content: bytes, files: dict[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(posixpath.basename(filename), content)
        for name, data in files.items():
            archive.writestr(posixpath.basename(name), data)
    return buffer.getvalue()
