"""Contents: the files under the root directory and their HTTP."""
