"""Who receives a copy of this database: its replicas."""

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from models.base import Base, Created, TextKey
from models.published import Unpublished


class Replica(Base):
    """A database that subscribes to the publication `datastore` (`models.publication`).

    `name` names the replication slot here and the subscription there, as `datastore_NAME`;
    `target` is the replica's address without a password. The row is written before either exists,
    so that what an interrupted command made can be found and removed.
    """

    __tablename__ = "replicas"
    __feed__ = Unpublished("addresses of databases are the server's own business")
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9_]{1,40}$'", name="name"),
        CheckConstraint("target ~ '^postgresql://'", name="target_is_address"),
    )

    name: Mapped[TextKey]
    target: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[Created]
