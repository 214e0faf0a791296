"""The built-in renderers, one a file: each takes a loaded run and writes into a folder."""
