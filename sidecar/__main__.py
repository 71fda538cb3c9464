"""`python -m sidecar` runs the sidecar; `python -m sidecar healthcheck` asks the one beside it how it is."""

import os
import signal
import sys

from sidecar.settings import SettingsError


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status: 2 for bad settings or a bad command line."""
    try:
        if arguments == ["healthcheck"]:
            return _healthcheck()
        if not arguments:
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # heard once the loop listens
            from sidecar.run import run

            return run(os.environ)
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"sidecar: {line}", file=sys.stderr)
        return 2
    helped = arguments in (["-h"], ["--help"])
    print("usage: python -m sidecar [healthcheck]", file=sys.stdout if helped else sys.stderr)
    return 0 if helped else 2


def _healthcheck() -> int:
    """0 for healthy, else 1: what a container's health check may end with. Nothing goes to standard error."""
    from sidecar.healthcheck import healthy

    try:
        return 0 if healthy(os.environ) else 1
    except SettingsError as error:
        print(f"sidecar: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
