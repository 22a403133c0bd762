"""Events as `jupyter_events` has them: published, and sent to who subscribed."""
