"""Users, groups, tokens, permissions and share links: what the commands and `/api/users` do."""
