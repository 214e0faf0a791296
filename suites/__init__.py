"""The built-in suites: TOML, read as package data."""
