"""Who the asker is: `/api/me`."""
