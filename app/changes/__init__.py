"""The change feed: rows reach clients as they change (docs/feed.md)."""
