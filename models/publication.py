"""What leaves this database: for each table, the columns that are published and those that are not.

Replicas and `jupyter-datastore stream` read the publication `datastore`, made by
`models/sql/publications/datastore.sql`. This module is its declaration, and says why the rest is
withheld. A table or column that is named nowhere is not published, and a test fails until somebody
has decided about it here. Tables outside of `public` are named with their schema. No table is
defined here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = "datastore"


@dataclass(frozen=True)
class Published:
    """A published table: its columns, withheld columns with the reason, and a row filter.

    `where` is the filter as SQL; PostgreSQL lets it read columns of the replica identity only.
    `key` are the columns that tell one row from another. Where they may be null, the replica
    identity is the whole row, and PostgreSQL takes no column list: all columns are published.
    """

    columns: tuple[str, ...]
    withheld: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    key: tuple[str, ...] = ("id",)
    whole: bool = False


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SUMS = (
    "executions ok failed aborted cancelled interrupted run_seconds run_seconds_max queue_seconds"
    " queue_seconds_max output_bytes"
)

PUBLISHED: Mapping[str, Published] = {
    # Roll-ups, since the triggers that lead to them do not fire for rows that arrive.
    "analytics.rollup_cells": Published(
        _words(
            "day path cell_id run_as_id actor_id executions failed run_seconds run_seconds_max"
            " output_bytes"
        ),
        key=_words("day path cell_id run_as_id actor_id"),
        whole=True,
    ),
    "analytics.rollup_days": Published(
        _words("day run_as_id actor_id kernel_name path " + _SUMS),
        key=_words("day run_as_id actor_id kernel_name path"),
        whole=True,
    ),
    "analytics.rollup_errors": Published(
        _words("day error_name library path run_as_id actor_id errors"),
        key=_words("day error_name library path run_as_id actor_id"),
        whole=True,
    ),
    "analytics.rollup_hours": Published(
        _words("hour run_as_id actor_id kernel_name path " + _SUMS),
        key=_words("hour run_as_id actor_id kernel_name path"),
        whole=True,
    ),
    "analytics.rollup_kernels": Published(
        _words("kernel_id day executions busy_seconds"), key=_words("kernel_id day")
    ),
    "cells": Published(
        _words(
            "id notebook_id cell_id position cell_type source version metadata attachments extra"
            " execution_count execution_state execution_id"
        )
    ),
    "contents": Published(
        _words(
            "id parent_id path name type format mimetype writable size created last_modified hash"
            " hash_algorithm file_key missing_since"
        )
    ),
    "documents": Published(
        _words(
            "id content_id type format version saved_version saved_at save_error disk_hash"
            " created_at"
        ),
        {
            "disk_base": "hashes for the next merge with the file, of use to the server alone",
            "compacted_version": "of use only with the updates, which are withheld",
        },
    ),
    "executions": Published(
        _words(
            "id seq kernel_id incarnation session_id document_id path cell_id cell_version actor_id"
            " run_as_id client msg_id code source_hash silent store_history stop_on_error"
            " allow_stdin user_expressions status reason execution_count queued_at started_at"
            " finished_at ename evalue traceback reply output_bytes"
        ),
        {"idempotency_key": "chosen by a client to be known by it alone"},
    ),
    "group_members": Published(
        _words("group_id user_id created_at"), key=_words("group_id user_id")
    ),
    "groups": Published(
        _words("id name created_at"), {"hub_name": "of use only to the server of a hub"}
    ),
    "input_requests": Published(
        _words(
            "id execution_id kernel_id msg_id prompt password status answered_by_id created_at"
            " answered_at"
        ),
        {"value": "what a person typed, which may be a secret that the code did not call one"},
        where="NOT password",
    ),
    "kernels": Published(
        _words(
            "id name path execution_state reason incarnation connections owner_id server_id pid"
            " pid_started_at kernel_info recorded_batch created_at last_activity ended_at"
        ),
        {"connection_info": "holds the key that signs messages to the kernel"},
    ),
    "kernelspecs": Published(
        _words("id name is_default resources refreshed_at"),
        {"spec": "its env may hold secrets of the kernels"},
    ),
    "notebooks": Published(_words("id nbformat nbformat_minor metadata extra")),
    "outputs": Published(
        _words(
            "id partition_id execution_id seq kernel_id cell_id output_type name text data metadata"
            " execution_count ename evalue traceback extra display_id comm_id size_bytes created_at"
            " updated_at cleared_at"
        )
    ),
    # With people and groups, what the policies decide by: they hold on the replica too.
    "permissions": Published(
        _words(
            "id subject user_id group_id resource content_id kernel_id actions granted_by_id"
            " share_link_id created_at expires_at"
        )
    ),
    "server_status": Published(
        _words("id hostname pid process_started_at version started_at heartbeat_at stopped_at")
    ),
    "sessions": Published(
        _words("id path name type kernel_id document_id owner_id created_at ended_at")
    ),
    "sql_roles": Published(_words("role_name user_id created_at"), key=("role_name",)),
    "users": Published(
        _words(
            "id name full_name display_name initials avatar_url color admin home_id home_path"
            " created_at disabled_at"
        ),
        {"hub_name": "of use only to the server of a hub"},
    ),
}

# Tables of which nothing leaves.
WITHHELD: Mapping[str, str] = {
    "analytics.rollup_pending": "what is still to be added up, here",
    "audit": "attempts and addresses, for administrators of this database",
    "changes": "the feed of this database; a replica's triggers do not fire",
    "checkpoints": "of use only where the files are",
    "collaboration_session": "of use only where documents are edited",
    "comm_messages": "what widgets are told, a password field's text among it",
    "comms": "widgets' state, a password field's text among it",
    "config_sections": "a person's own settings",
    "document_forks": "merge state, with text that was deleted",
    "document_snapshots": "merge state, with text that was deleted",
    "document_updates": "merge state, with text that was deleted",
    "document_versions": "merge state, with text that was deleted",
    "feed_epoch": "the feed of this database",
    "feed_marks": "the feed of this database",
    "idempotency_keys": "chosen by clients to be known by them alone",
    "lab_settings": "a person's own settings",
    "lab_workspaces": "a person's own settings",
    "passwords": "secrets, though hashed",
    "presence": "who is connected now, here; unlogged",
    "replicas": "addresses of databases",
    "share_links": "secrets, though hashed",
    "terminals": "of use only where they run",
    "text_contents": "files' texts, which say nothing of what ran",
    "tokens": "secrets, though hashed",
}
