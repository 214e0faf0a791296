"""``python -m effbench`` is the program."""

from effbench.cli import main

main()
