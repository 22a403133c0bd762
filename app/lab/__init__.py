"""JupyterLab's pages, assets, settings and workspaces, from the wheels that are installed."""
