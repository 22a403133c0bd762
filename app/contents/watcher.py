"""Watching the root directory for what other programs do, with `watchfiles`.

Every visible folder is watched by itself, the nearest to the root first, up to a limit
(`watch_folder_limit`); hidden folders, checkpoints and links to folders are not, so that a virtual
environment or a linked archive costs nothing. What happens in a folder is brought into the tables
by reading that folder, once for many events. A new folder is watched first and read then, so that
nothing falls in between. What cannot be watched still follows when it is listed or refreshed.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from watchfiles import Change
from watchfiles._rust_notify import RustNotify

from app.contents.disk import Disk
from app.contents.following import Following
from app.settings import Settings

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 1000
_STEP_MS = 50
_TIMEOUT_MS = 5000
# More events at once than this may have overflowed the kernel's queue: all is looked at.
_MANY = 5000
_IDLE_SECONDS = 60
_RETRY_SECONDS = (1, 2, 5, 10, 30)

Events = set[tuple[int, str]]


class Watcher:
    """Brings changes of watched folders into the tables as long as it runs.

    `watching` is set once the folders are watched and those known from before are up to date.
    """

    def __init__(self, disk: Disk, following: Following, settings: Settings) -> None:
        self._disk = disk
        self._following = following
        self._enabled = settings.watch_files and disk.files
        self._folders: set[str] = set()
        self._notifier: _Notifier | None = None
        self._events: asyncio.Queue[Events] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.watching = asyncio.Event()

    def start(self) -> None:
        """Start watching, unless it is switched off or the manager has no files."""
        if self._enabled:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._stop(self._notifier)

    async def _run(self) -> None:
        dirty, rebuild, failures = set[str](), True, 0
        while True:
            try:
                if rebuild:
                    dirty |= await self._watch_all()
                    rebuild = False
                if dirty:
                    await self._following.refresh_folders(dirty)
                    dirty = set()
                self.watching.set()
                failures = 0
                events = await self._next()
                if len(events) >= _MANY:
                    dirty |= self._folders
                places, rebuild = await asyncio.to_thread(self._places, events)
                dirty |= places
                if not events:
                    await self._following.forget_vanished()
            except Exception as error:  # noqa: BLE001 (the database may be away; it comes back)
                log.warning("changes on disk wait to be followed: %r", error)
                await asyncio.sleep(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1

    async def _next(self) -> Events:
        """Return all events that have come, none after some time without any."""
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                events = set(await self._events.get())
        except TimeoutError:
            return set()
        while not self._events.empty():
            events |= self._events.get_nowait()
        return events

    async def _watch_all(self) -> set[str]:
        """Watch the folders that there are now; return those to look at, new or known."""
        folders, more = await self._following.folders_below("")
        if more:
            log.warning("only the %d folders nearest to the root are watched", len(folders))
        before = self._folders
        old = self._notifier
        self._notifier, self._folders = await self._notify(folders)
        await self._stop(old)
        if old is None:
            return set(await self._following.known_folders())
        return self._folders - before

    async def _notify(self, folders: list[str]) -> tuple["_Notifier", set[str]]:
        while True:
            paths = [str(self._disk.os_path(folder)) for folder in folders]
            notifier = _Notifier(paths, asyncio.get_running_loop(), self._events.put_nowait)
            try:
                await notifier.ready
            except FileNotFoundError:
                folders = [f for f in folders if self._disk.os_path(f).is_dir()]
            except Exception as error:
                if len(folders) == 1:
                    raise
                folders = folders[: max(1, len(folders) // 2)]
                log.warning("watching %d folders only: %s", len(folders), error)
            else:
                return notifier, set(folders)

    async def _stop(self, notifier: "_Notifier | None") -> None:
        if notifier is not None:
            await asyncio.to_thread(notifier.stop)

    def _places(self, events: Iterable[tuple[int, str]]) -> tuple[set[str], bool]:
        """Return the folders in which something happened, and whether folders came or went."""
        places: set[str] = set()
        rebuild = False
        root = self._disk.root_dir
        for change, os_path in events:
            try:
                relative = Path(os_path).relative_to(root)
            except ValueError:
                continue
            path = "" if relative == Path() else relative.as_posix()
            if any(not self._is_shown(part) for part in relative.parts):
                continue
            known, is_dir = path in self._folders, Path(os_path).is_dir()
            if known:
                places.add(path)
            places.add(path.rpartition("/")[0])
            came_or_went = change != Change.modified and (known or is_dir)
            if path and (came_or_went or known != is_dir):
                rebuild = rebuild or not Path(os_path).is_symlink()
        return places, rebuild

    def _is_shown(self, name: str) -> bool:
        if name.startswith((".~", ".ipynb_checkpoints")):
            return False
        manager = self._disk.manager
        return bool(manager.allow_hidden or not name.startswith(".")) and manager.should_list(name)


class _Notifier:
    """A thread that waits for what the system says of some folders.

    `ready` is done once they are watched, or fails with the reason why they cannot be.
    """

    def __init__(
        self, paths: list[str], loop: asyncio.AbstractEventLoop, put: Callable[[Events], None]
    ) -> None:
        self.ready: asyncio.Future[None] = loop.create_future()
        self._paths = paths
        self._loop = loop
        self._put = put
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchfiles", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; blocks for as long as one step."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            notify = RustNotify(self._paths, False, False, 300, False, True)
        except Exception as error:  # noqa: BLE001 (for who awaits `ready`)
            self._tell(_fail, self.ready, error)
            return
        self._tell(_finish, self.ready)
        with notify:
            while True:
                events = notify.watch(_DEBOUNCE_MS, _STEP_MS, _TIMEOUT_MS, self._stopped)
                if self._stopped.is_set() or events in ("stop", "signal"):
                    return
                if isinstance(events, set):
                    self._tell(self._put, events)

    def _tell(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(call, *arguments)


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: "asyncio.Future[None]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
