"""The errors that effbench raises on purpose. The command line prints them without a traceback."""

#: The exit codes of the program.
FINE, WORSE, USAGE, NOTHING, INTERRUPTED = 0, 1, 2, 3, 130


class EffbenchError(Exception):
    """Something effbench cannot go on with; the message names the remedy."""


class BadInput(EffbenchError):
    """What the user gave is wrong: says where, what was wrong and what is accepted (exit code 2)."""


class NothingMeasured(EffbenchError):
    """There is no number to show (exit code 3)."""


class Unsupported(Exception):
    """A cell asks for what its mechanism does not offer: an answer with a reason, not a failure."""
