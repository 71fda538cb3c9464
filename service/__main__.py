"""`python -m service [COMMAND]`. Each command imports only what it needs: the health check has to be quick."""

import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING

from service.environment import ignore_switches

if TYPE_CHECKING:
    from service.settings import Settings

USAGE = """usage: python -m service [COMMAND]

  serve        answer HTTP, and run the background work while this task leads (the default)
  migrate      bring the database up to date
  sample       add the sample portfolios
  run          run a daily job by hand: eod, snapshot or reconstruct; see run --help
  import       load positions or prices from a CSV file; see import --help
  fence        show the database's side of a lease's fence, and mend it; see fence --help
  token        print a development access token; see token --help
  healthcheck  ask the service in this container whether it is well

Settings come from the environment; README.md and docs/price-sources.md have them all.
Exit status: 0 well, 1 failed, 2 wrong arguments or settings."""

WITHOUT_ARGUMENTS = "serve", "migrate", "sample", "healthcheck"


def main(arguments: list[str]) -> int:
    """Run a command; returns the exit status: 0 well, 1 failed, 2 wrong arguments or settings."""
    ignored = ignore_switches()  # before any library is imported
    match arguments:
        case [] | ["serve"]:
            from service.serve import serve

            return run(serve, ignored, ends_itself=True)
        case ["migrate"]:
            return run(migrate, ignored)
        case ["sample"]:
            return run(sample, ignored)
        case ["token", *options]:
            from service.commands.development_token import command

            return command(options)
        case ["run", *options]:
            from service.commands import run_job as by_hand

            return run(partial(by_hand.run, by_hand.parse(options)), ignored)
        case ["import", *options]:
            from service.commands import import_csv as imports

            return run(partial(imports.run, imports.parse(options)), ignored)
        case ["fence", *options]:
            from service.commands import fence

            return run(partial(fence.run, fence.parse(options)), ignored)
        case ["healthcheck"]:
            from service.healthcheck import check

            well, answer = check()
            print(answer)
            return 0 if well else 1
        case ["-h" | "--help" | "help"]:
            print(USAGE)
            return 0
        case [name, "-h" | "--help"] if name in WITHOUT_ARGUMENTS:
            does = next(line for line in USAGE.splitlines() if line.split()[:1] == [name])
            print(f"usage: python -m service {name}\n\n{does.strip().removeprefix(name).strip()}")
            return 0
        case [name, *_] if name in WITHOUT_ARGUMENTS:
            print(f"python -m service {name}: takes no arguments", file=sys.stderr)
            return 2
    from runtime.escape import one_line

    named = one_line(repr(arguments[0]), 80)
    print(f"python -m service: no command {named}; --help names those there are", file=sys.stderr)
    return 2


async def migrate(settings: "Settings") -> None:
    """Apply the migrations that the database lacks."""
    from service.database.migrations import migrate as apply

    if not await apply(settings.database_url.get_secret_value()):  # it tells of each that it applies
        print("the database is up to date")


async def sample(settings: "Settings") -> None:
    """Add the sample portfolios that are missing."""
    from service.commands.samples import load_samples
    from service.database.store import Store

    async with await Store.connect(settings.database_url.get_secret_value(), connections=1) as store:
        print("\n".join(map(str, await load_samples(store))))


def run(
    work: "Callable[[Settings], Coroutine[None, None, None]]", ignored: Sequence[str] = (), *, ends_itself: bool = False
) -> int:
    """Run the work with the settings; what the user can mend is one line on standard error.

    Args:
        work: the command.
        ignored: names of the environment's variables that do not count, for the log.
        ends_itself: whether the command heeds SIGINT and SIGTERM by itself.
    """
    import logging

    import uvloop

    from runtime.environment import tell
    from service.commands.csv_file import BadFile
    from service.commands.fence import NotMended
    from service.commands.output import print_error
    from service.database.connection import StaleTerm, StoreError
    from service.database.migrations import MigrationError
    from service.ending import Stopped, until_stopped
    from service.environment import missing_certificates, unusable_files
    from service.prices import PricesUnavailable
    from service.settings import SettingsError, read_settings
    from service.telemetry import set_up_logs

    try:
        if unusable := list(unusable_files()):
            raise SettingsError("\n".join(unusable))
        settings = read_settings()
        set_up_logs(settings.log_format, settings.log_level)
        tell(logging.getLogger("service"), ignored)
        for missing in missing_certificates():
            logging.getLogger("service").warning(missing)
        running = work(settings)
        uvloop.run(running if ends_itself else until_stopped(running))
    except Stopped as stopped:
        return stopped.status
    except (SettingsError, BadFile) as error:
        print_error(error)
        return 2
    except (StoreError, StaleTerm, MigrationError, NotMended, PricesUnavailable) as error:
        print_error(error)
        return 1
    return 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:  # before there was anything to stop
        status = 130
    except BrokenPipeError:  # who reads has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would find it closed again
        status = 1
    sys.exit(status)
