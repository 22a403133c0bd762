"""What the server is and how it does."""
