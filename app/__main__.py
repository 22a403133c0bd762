"""`python -m app` is `jupyter-datastore`."""

from app.cli import main

main()
