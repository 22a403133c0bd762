"""The contents manager that touches the disk (or whatever else it is configured for).

jupyter_server's classes are the library; what is changed about them is that a file is written
whole or not at all. How their errors become the domain's is here too.
"""

import errno
import importlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_server.services.contents.fileio import FileManagerMixin
from jupyter_server.services.contents.manager import ContentsManager
from nbformat.sign import SignatureStore, SQLiteSignatureStore
from tornado.web import HTTPError
from traitlets import TraitError
from traitlets.config import LoggingConfigurable

from app.contents.writing import whole_file
from app.errors import (
    BadRequestError,
    ConflictError,
    DomainError,
    ForbiddenError,
    NotFoundError,
    StorageError,
)
from app.settings import Settings

log = logging.getLogger(__name__)

_STATUSES: dict[int, type[DomainError]] = {
    400: BadRequestError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
# What the disk says about a path that a client chose; all else (full, broken) is the disk's fault.
_REFUSALS: dict[int, type[DomainError]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: NotFoundError,
    errno.ENAMETOOLONG: BadRequestError,
    errno.ELOOP: BadRequestError,
    errno.EINVAL: BadRequestError,
    errno.EILSEQ: BadRequestError,
    errno.EISDIR: BadRequestError,
    errno.EACCES: ForbiddenError,
    errno.EPERM: ForbiddenError,
}


class ManagerError(Exception):
    """The configured contents manager cannot be used; says why."""


class UnsupportedError(DomainError):
    """The configured contents manager cannot do that."""

    status = 501


class WholeFiles:
    """Makes a file based manager write whole files."""

    use_atomic_writing: bool
    perm_to_403: Any

    @contextmanager
    def atomic_writing(
        self,
        os_path: str,
        text: bool = True,
        encoding: str = "utf-8",
        **options: Any,
    ) -> Iterator[Any]:
        """Yield the file to write to; its old content stays unless all of this succeeds."""
        if not self.use_atomic_writing:
            with super().atomic_writing(  # type: ignore[misc]
                os_path, text=text, encoding=encoding, **options
            ) as file:
                yield file
            return
        options.pop("log", None)
        if text:
            options = {"newline": "\n", "encoding": encoding, **options}
        with (
            self.perm_to_403(os_path),
            whole_file(Path(os_path), "w" if text else "wb", **options) as file,
        ):
            yield file


class _ThreadsStore(SignatureStore):
    """Signatures of trusted notebooks for many threads: SQLite's connections belong to one each."""

    def __init__(self, make: Callable[[], SignatureStore]) -> None:
        self._make = make
        self._local = threading.local()

    @property
    def _own(self) -> Any:
        if not hasattr(self._local, "store"):
            self._local.store = self._make()
        return self._local.store

    def store_signature(self, digest: str, algorithm: str) -> None:
        """Trust what has this digest."""
        self._own.store_signature(digest, algorithm)

    def check_signature(self, digest: str, algorithm: str) -> bool:
        """Tell whether what has this digest is trusted."""
        return bool(self._own.check_signature(digest, algorithm))

    def remove_signature(self, digest: str, algorithm: str) -> None:
        """Trust what has this digest no longer."""
        self._own.remove_signature(digest, algorithm)


def make_manager(settings: Settings) -> Any:
    """Return the contents manager that the settings name, on their root directory.

    Raises ManagerError when it cannot be imported or does not take its options.
    """
    module, _, name = settings.contents_manager_class.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ManagerError(f"{settings.contents_manager_class} cannot be imported") from error
    if not isinstance(found, type) or not issubclass(found, ContentsManager):
        raise ManagerError(f"{settings.contents_manager_class} is not a contents manager")
    if (
        issubclass(found, FileManagerMixin)
        and found.atomic_writing is FileManagerMixin.atomic_writing
    ):
        found = type(found.__name__, (WholeFiles, found), {})
    traits: dict[str, Any] = {
        "root_dir": str(settings.root_dir.resolve()),
        "allow_hidden": settings.allow_hidden,
        "delete_to_trash": settings.delete_to_trash,
        "always_delete_dir": settings.always_delete_dir,
        **settings.contents_manager_options,
    }
    known = set(found.class_trait_names())
    if unknown := sorted(settings.contents_manager_options.keys() - known):
        raise ManagerError(f"{found.__name__} has no option {', '.join(unknown)}")
    # The logger, not this module's: jupyter_server warns of every notebook that is not trusted.
    parent = LoggingConfigurable(log=logging.getLogger(f"{__name__}.{found.__name__}"))
    parent.log.setLevel(logging.ERROR)
    try:
        made = found(parent=parent, **{k: v for k, v in traits.items() if k in known})
    except TraitError as error:
        raise ManagerError(f"{found.__name__}: {error}") from error
    if isinstance(made.notary.store, SQLiteSignatureStore):
        made.notary.store.close()  # type: ignore[no-untyped-call]
        made.notary.store = _ThreadsStore(made.notary.store_factory)
    return made


@contextmanager
def domain_errors(path: str, root_dir: Path) -> Iterator[None]:
    """Raise the domain's errors for those of a contents manager and of the disk.

    Messages name paths as clients know them, below the root directory.
    """
    try:
        yield
    except HTTPError as error:
        cause = error.__cause__
        if error.status_code >= 500 and isinstance(cause, OSError):
            raise _disk_error(path, cause) from error
        message = str(error.log_message or error.reason or "")
        raise _with_status(
            error.status_code, _below(message, root_dir), reason=error.reason
        ) from error
    except OSError as error:
        raise _disk_error(path, error) from error
    except NotImplementedError as error:
        raise UnsupportedError("The contents manager cannot do that") from error
    except UnicodeEncodeError as error:
        raise BadRequestError(f"{path!a} has no form in UTF-8") from error
    except RecursionError as error:
        raise BadRequestError(f"{path}: nested too deeply") from error


def _disk_error(path: str, error: OSError) -> DomainError:
    kind = _REFUSALS.get(error.errno or 0, StorageError)
    if kind is NotFoundError:
        return NotFoundError(f"No such file or directory: {path}")
    return kind(f"{path}: {error.strerror or error}", reason=error.strerror)


def _with_status(status: int, message: str, *, reason: str | None) -> DomainError:
    kind = _STATUSES.get(status, StorageError if status >= 500 else BadRequestError)
    error = kind(message, reason=reason)
    if 400 <= status < 500:
        error.status = status
    return error


def _below(message: str, root_dir: Path) -> str:
    """Return a message without the place of the root directory, which is no client's business."""
    root = re.escape(str(root_dir).rstrip("/"))
    return re.sub(rf"{root}/(?=[^\s'\"])", "", message)
