"""``python -m effbench.suite_schema`` prints the JSON schema of a suite's TOML, for editors."""

from __future__ import annotations

import json

from effbench.suite import Suite


def schema() -> str:
    """The schema as text, with a newline at its end."""
    return json.dumps(Suite.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    print(schema(), end="")
