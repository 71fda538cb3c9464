"""`python -m sidecar` runs the sidecar; `python -m sidecar healthcheck` asks the one beside it how it is."""

import os
import sys

from sidecar.settings import SettingsError


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status: 2 for bad settings or a bad command line."""
    try:
        if arguments == ["healthcheck"]:
            from sidecar.healthcheck import healthy

            return 0 if healthy(os.environ) else 1
        if not arguments:
            from sidecar.run import run

            return run(os.environ)
    except SettingsError as error:
        print(f"sidecar: {error}", file=sys.stderr)
        return 2
    helped = arguments in (["-h"], ["--help"])
    print("usage: python -m sidecar [healthcheck]", file=sys.stdout if helped else sys.stderr)
    return 0 if helped else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
