"""The built-in mechanisms, one a file; they come in by entry points like everyone else's."""
