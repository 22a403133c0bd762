"""Functions, triggers, views, policies, publications and storage, as SQL files.

Migrations carry frozen copies of what they install; the tests compare the schema that the
migrations make with the one that the models and these files make.
"""

from importlib import resources

from sqlalchemy import DDL, MetaData, event

FOLDERS = (
    "roles",
    "functions",
    "triggers",
    "views",
    "policies",
    "partitions",
    "grants",
    "analytics",
    "publications",
    "storage",
)


def files() -> list[tuple[str, str]]:
    """Return (name, text) of every SQL file, in an order in which they can be run."""
    return [
        (f"{folder}/{entry.name}", entry.read_text("utf-8"))
        for folder in FOLDERS
        for entry in sorted(
            resources.files(__package__).joinpath(folder).iterdir(), key=lambda entry: entry.name
        )
        if entry.name.endswith(".sql")
    ]


def attach(metadata: MetaData) -> None:
    """Have `metadata.create_all` run the files after the tables exist."""
    for _, text in files():
        event.listen(metadata, "after_create", DDL(text.replace("%", "%%")))  # type: ignore[no-untyped-call]


def report(name: str) -> str:
    """Return the query of a report, by its name; `:begins`, `:ends` and `:rows` are parameters."""
    return resources.files(__package__).joinpath("reports", f"{name}.sql").read_text("utf-8")
