"""A day's history as one HTML page: plots and tables inside, nothing fetched from anywhere."""

from html import escape
from importlib import resources

from app.analytics.day import Day
from app.analytics.plots import plots
from app.analytics.tables import Section, sections, summary


def page(day: Day) -> str:
    """Return the page; ImportError without matplotlib."""
    style = resources.files(__package__).joinpath("page.css").read_text("utf-8")
    title = f"{day.begins:%A, %-d %B %Y}"
    facts = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)}</dd></div>"
        for what, value in summary(day)
    )
    figures = "".join(f"<figure>{svg}</figure>" for svg in plots(day))
    tables = "".join(_table(section) for section in sections(day))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Whatever got into a cell's text: this page runs and fetches nothing.
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Jupyter Datastore: {escape(title)}</title><style>{style}</style></head>"
        f"<body><main><h1>{escape(title)}</h1><dl>{facts}</dl>"
        f'<section class="plots">{figures}</section>{tables}'
        f"<footer>Executions asked for from {day.begins:%Y-%m-%d %H:%M %Z} until"
        f" {day.ends:%Y-%m-%d %H:%M %Z}. Made by jupyter-datastore report.</footer>"
        "</main></body></html>\n"
    )


def _table(section: Section) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in section.right else ''}>{escape(value)}</{tag}>"
            for place, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in section.rows)
    return (
        f"<section><h2>{escape(section.title)}</h2><table><thead>"
        f"<tr>{cells('th', section.columns)}</tr></thead><tbody>{body}</tbody></table></section>"
    )
