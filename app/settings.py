"""What can be set, with its defaults: command line options and `DATASTORE_*` variables.

Nothing here reads or makes files; that is for who uses a setting.
"""

import getpass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# The fields of Jupyter's identity model that a user may be allowed to change.
IdentityField = Literal["name", "display_name", "initials", "avatar_url", "color"]


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a uid without a name
        return "owner"


class Settings(BaseSettings):
    """Settings of one server process."""

    model_config = SettingsConfigDict(env_prefix="DATASTORE_")

    root_dir: Path = Field(default_factory=Path.cwd)
    host: str = "localhost"
    port: int = 8888
    sock: Path | None = None
    sock_mode: str = Field(default="0600", pattern="^0?[0-7]{3}$")
    certfile: Path | None = None
    keyfile: Path | None = None
    base_url: str = "/"
    token: str | None = None
    owner: str = Field(default_factory=_current_user, min_length=1)
    # Who may ask from where; the names are those of Jupyter Server's settings.
    allow_origin: str = ""
    allow_origin_pat: str = ""
    allow_credentials: bool = False
    allow_remote_access: bool | None = None
    local_hostnames: list[str] = ["localhost"]
    trust_xheaders: bool = False
    cookie_secret: str | None = Field(default=None, min_length=32)
    content_security_policy: str = "frame-ancestors 'self'"

    data_dir: Path | None = None
    database_url: str | None = None
    max_body_bytes: int = 512 * 1024 * 1024
    database_pool_size: int = 10
    recorder_pool_size: int = 8
    # Of each kernel: messages beyond it wait for the database on the disk.
    recorder_memory_bytes: int = Field(default=128 * 1024 * 1024, ge=0)
    kernel_start_timeout_seconds: float = 60
    kernel_poll_seconds: float = 1.0
    kernel_restart_limit: int = 5
    kernel_request_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    # At least this many of the last messages of each open comm are kept, up to so many bytes.
    comm_messages_kept: int = Field(default=1_000, ge=1)
    comm_bytes_kept: int = Field(default=64 * 1024 * 1024, ge=1)
    # As in Jupyter Server: 0 never culls.
    cull_idle_timeout: float = Field(default=0, ge=0)
    cull_interval: float = Field(default=300, gt=0)
    cull_connected: bool = False
    cull_busy: bool = False
    cull_open_comms: bool = True
    shutdown_timeout_seconds: float = 10
    save_delay_seconds: float = 0.5
    save_interval_max_seconds: float = 5.0
    room_linger_seconds: float = Field(default=60.0, ge=0)
    document_undo_days: float = Field(default=7.0, gt=0)
    document_history_days: float = Field(default=90.0, gt=0)
    room_queue_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    # Of one websocket: messages over the limit close it; what is kept for a client that is away
    # (0: nothing), and what may wait for one that reads slowly.
    websocket_max_message_bytes: int = 128 * 1024 * 1024
    channel_buffer_bytes: int = 16 * 1024 * 1024
    channel_queue_bytes: int = 64 * 1024 * 1024
    # Contents: the class that reads and writes, its options, and what Jupyter lets one set.
    contents_manager_class: str = (
        "jupyter_server.services.contents.largefilemanager.AsyncLargeFileManager"
    )
    contents_manager_options: dict[str, Any] = {}
    allow_hidden: bool = False
    delete_to_trash: bool = True
    always_delete_dir: bool = False
    # Following what other programs do to files: on or off, and how many folders at most.
    watch_files: bool = True
    watch_folder_limit: int = Field(default=4096, ge=1)
    # Upkeep of the database. Whole partitions are dropped, so the time of rows is rounded up to
    # the end of theirs; None keeps all.
    upkeep_interval_seconds: float = Field(default=60, gt=0)
    partition_unit: Literal["month", "week", "day"] = "month"
    partitions_ahead: int = Field(default=2, ge=1)
    keep_executions_days: float | None = Field(default=None, gt=0)
    keep_outputs_days: float | None = Field(default=None, gt=0)
    keep_rollups_days: float | None = Field(default=None, gt=0)
    terminals_enabled: bool = True
    terminal_command: str | None = None
    terminal_cull_inactive_timeout: float = Field(default=0, ge=0)
    terminal_cull_interval: float = Field(default=300, gt=0)
    identity_updatable_fields: list[IdentityField] = list(get_args(IdentityField))
    nbconvert_concurrency: int = Field(default=2, ge=1)
    metrics_public: bool = False
    # As a service of JupyterHub: how long what the hub said of a token holds, how long open
    # connections outlast a hub that is away, how long it is waited for, how often it is told who
    # was active (0: never), and whether `custom:jupyter-datastore:` scopes bound what tokens may.
    hub_cache_seconds: float = Field(default=30.0, gt=0)
    hub_grace_seconds: float = Field(default=600.0, ge=0)
    hub_timeout_seconds: float = Field(default=10.0, gt=0)
    hub_activity_seconds: float = Field(default=300.0, ge=0)
    hub_custom_scopes: bool | None = None
    # The change feed: how long changes are kept for who resumes, what may wait for one client and
    # for how long it may read nothing, how often it hears from the server, and how late a lost
    # wake-up is made up for.
    feed_retention_seconds: float = Field(default=86_400, gt=0)
    feed_max_subscriptions: int = Field(default=10_000, ge=1)
    feed_queue_bytes: int = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    feed_lag_seconds: float = Field(default=60, gt=0)
    feed_heartbeat_seconds: float = Field(default=15, gt=0)
    feed_poll_seconds: float = Field(default=5, gt=0)
    # The front end: whether documents are shared live, and more for the pages' configuration.
    default_url: str = "/lab"
    collaboration: bool = True
    page_config: dict[str, Any] = {}
