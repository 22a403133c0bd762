"""Starting and ending kernel processes with jupyter_client, and saying why one ended."""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from app.errors import BadRequestError, DomainError

log = logging.getLogger(__name__)

_LOG_LIMIT_BYTES = 16 * 1024 * 1024
_LOG_TAIL_BYTES = 2_000


class NoSuchKernelspecError(BadRequestError):
    """There is no kernelspec with this name."""


class KernelStartError(DomainError):
    """A kernel could not be started; `reason` holds what it or the system said."""

    status = 500


def make_context() -> zmq.asyncio.Context:
    """Return a ZeroMQ context whose sockets receive without a high-water mark."""
    context = zmq.asyncio.Context()
    context.setsockopt(zmq.RCVHWM, 0)
    # Sockets are connected before the kernel listens: look again soon.
    context.setsockopt(zmq.RECONNECT_IVL, 20)
    return context


class KernelProcess:
    """One kernel's process, over restarts, and the log of its stdout and stderr.

    What a kernel prints past its own capture (start-up errors, crashes of native code) goes to a
    log file, whose end explains a death.
    """

    def __init__(
        self,
        kernel_id: str,
        name: str,
        specs: KernelSpecManager,
        context: zmq.asyncio.Context,
        log_dir: Path,
    ) -> None:
        self._log_path = log_dir / f"{kernel_id}.log"
        self._log_fd: int | None = None
        self.manager = AsyncKernelManager(
            kernel_name=name, kernel_spec_manager=specs, context=context
        )
        self.manager.kernel_id = kernel_id
        self.exit_code: int | None = None

    async def start(self, *, cwd: str, env: dict[str, str]) -> None:
        """Start the process; raises KernelStartError with the system's reason."""
        try:
            if self.manager.kernel_spec is None:
                raise NoSuchKernel(self.manager.kernel_name)
            self._log_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._log_fd = os.open(
                self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_TRUNC, 0o600
            )
            await self.manager.start_kernel(
                cwd=cwd, env=env, stdout=self._log_fd, stderr=self._log_fd
            )
        except NoSuchKernel as error:
            raise NoSuchKernelspecError(f"No such kernel: {self.manager.kernel_name}") from error
        except BaseException as error:
            await self.stop(now=True)
            if not isinstance(error, Exception):
                raise
            raise KernelStartError(
                f"The kernel {self.manager.kernel_name!r} could not be started", reason=str(error)
            ) from error

    @property
    def pid(self) -> int | None:
        """The process id, when the kernel is a process of this machine."""
        return getattr(self.manager.provisioner, "pid", None)

    async def is_alive(self) -> bool:
        """Tell whether the process runs; remembers its exit code when it has ended."""
        provisioner = self.manager.provisioner
        if provisioner is None or not provisioner.has_process:
            return False
        self.exit_code = await provisioner.poll()
        return self.exit_code is None

    async def interrupt(self) -> None:
        """Interrupt what runs, by signal or message as the kernelspec says."""
        await self.manager.interrupt_kernel()

    async def restart(self, *, now: bool) -> None:
        """End the process if need be and start it again with the same ports and arguments."""
        await self.manager.restart_kernel(now=now)

    async def stop(self, *, now: bool = False) -> None:
        """End the process, politely unless `now`, and remove its files."""
        if self.manager.has_kernel:
            try:
                await self.manager.shutdown_kernel(now=now)
            except Exception:
                log.exception("kernel %s: shutting down", self.manager.kernel_id)
                await self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_connection_file()
        if self._log_fd is not None:
            os.close(self._log_fd)
            self._log_fd = None
        self._log_path.unlink(missing_ok=True)

    def connection_info(self) -> dict[str, Any]:
        """Return ports, address and signing key, as JSON."""
        info = dict(self.manager.get_connection_info())
        return {
            key: value.decode() if isinstance(value, bytes) else value
            for key, value in info.items()
        }

    def why(self) -> str:
        """Say how the process ended, with the end of its log."""
        code = self.exit_code
        if code is None:
            how = "the kernel died"
        elif code < 0:
            how = f"the kernel was killed by {_signal_name(-code)}"
        else:
            how = f"the kernel exited with status {code}"
        tail = self._log_tail()
        return f"{how}: {tail}" if tail else how

    def _log_tail(self) -> str:
        """Return the log's last lines; jupyter's own notices are of no use in a reason."""
        try:
            data = self._log_path.read_bytes()[-_LOG_TAIL_BYTES:]
        except OSError:
            return ""
        lines = data.decode("utf-8", "replace").splitlines()
        telling = [line for line in lines if line.strip() and "WARNING |" not in line]
        return "\n".join(telling[-8:]).strip()

    def trim_log(self) -> None:
        """Empty the log when it has grown too long; the process appends from the start."""
        if self._log_fd is not None and os.fstat(self._log_fd).st_size > _LOG_LIMIT_BYTES:
            os.ftruncate(self._log_fd, 0)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def wait_until_dead(process: KernelProcess, poll_seconds: float) -> None:
    """Return when the process has ended."""
    while await process.is_alive():
        process.trim_log()
        await asyncio.sleep(poll_seconds)
