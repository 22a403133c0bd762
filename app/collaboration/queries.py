"""Queries on documents as rooms need them."""

import uuid
from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, select

from models import Content, Document


def versions(document_ids: Collection[uuid.UUID]) -> Select[*tuple[Any, ...]]:
    """The version and path of documents."""
    return (
        select(Document.id, Document.version, Content.path)
        .join(Content, Content.id == Document.content_id)
        .where(Document.id.in_(document_ids))
    )
