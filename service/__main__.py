"""`python -m service [COMMAND]`. Most imports are inside functions, so that the health check starts quickly."""

import sys
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING

from runtime.command_line import run_and_exit
from service.environment import ignore_switches

if TYPE_CHECKING:
    from service.settings import Settings

USAGE = """usage: python -m service [COMMAND]

  serve        answer HTTP, and run the background work while this task leads (the default)
  migrate      bring the database up to date
  sample       add the sample portfolios, and set their positions
  run          run a daily job by hand: eod, snapshot or reconstruction; see run --help
  import       load positions or prices from a CSV file; see import --help
  fence        show a lease's fence in the database, and repair it; see fence --help
  token        print a development access token; see token --help
  healthcheck  check whether the service in this container is healthy

Settings come from environment variables; docs/settings.md lists them.
Exit status: 0 success, 1 failure, 2 invalid arguments or settings; 130 or 143 if SIGINT or SIGTERM ended a command."""

WITHOUT_ARGUMENTS = "serve", "migrate", "sample", "healthcheck"


def main(arguments: list[str]) -> int:
    """Run a command and return its exit status; see `USAGE`."""
    ignored = ignore_switches()  # before the libraries that read the variables are imported
    match arguments:
        case [] | ["serve"]:
            from service.serve import serve

            return run(serve, ignored, handles_signals=True)
        case ["migrate"]:
            return run(migrate, ignored)
        case ["sample"]:
            return run(sample, ignored)
        case ["token", *options]:
            from service.commands.development_token import command

            return command(options)
        case ["run", *options]:
            from service.commands import run_job

            return run(partial(run_job.run, run_job.parse(options)), ignored)
        case ["import", *options]:
            from service.commands import import_csv

            return run(partial(import_csv.run, import_csv.parse(options)), ignored)
        case ["fence", *options]:
            from service.commands import fence

            return run(partial(fence.run, fence.parse(options)), ignored)
        case ["healthcheck"]:
            from service.healthcheck import check

            healthy, report = check()
            print(report)
            return 0 if healthy else 1
        case ["-h" | "--help" | "help"]:
            print(USAGE)
            return 0
        case [name, "-h" | "--help"] if name in WITHOUT_ARGUMENTS:
            summary = next(line for line in USAGE.splitlines() if line.split()[:1] == [name])
            print(f"usage: python -m service {name}\n\n{summary.strip().removeprefix(name).strip()}")
            return 0
        case [name, *_] if name in WITHOUT_ARGUMENTS:
            print(f"python -m service {name}: takes no arguments", file=sys.stderr)
            return 2
    from runtime.escape import one_line

    name = one_line(repr(arguments[0]), 80)
    print(f"python -m service: no command {name}; --help lists the commands", file=sys.stderr)
    return 2


async def migrate(settings: "Settings") -> None:
    """Apply the migrations that the database lacks; the log names each of them."""
    from service.commands.output import print_line
    from service.database.migrations import migrate as apply

    if not await apply(settings.database_url.get_secret_value()):
        print_line("the database is up to date")


async def sample(settings: "Settings") -> None:
    """Add the missing sample portfolios, and print the ids of all of them."""
    from service.commands.output import print_line
    from service.commands.samples import load_samples
    from service.database.store import Store

    async with await Store.connect(settings.database_url.get_secret_value(), connections=1) as store:
        print_line("\n".join(map(str, await load_samples(store))))


def run(
    command: "Callable[[Settings], Coroutine[None, None, None]]",
    ignored: Sequence[str] = (),
    *,
    handles_signals: bool = False,
) -> int:
    """Run a command with the settings and return its exit status. Expected errors are printed without a traceback.

    Args:
        command: what to run.
        ignored: names of the environment variables that were removed, for the log.
        handles_signals: whether the command itself handles SIGINT and SIGTERM.
    """
    import logging

    import uvloop

    from runtime.environment import log_ignored
    from service.commands.csv_file import BadFile
    from service.commands.fence import NotRepaired
    from service.commands.output import print_error
    from service.database.connection import StaleTerm, StoreError
    from service.database.migrations import MigrationError
    from service.environment import missing_certificates, unusable_files
    from service.prices import PricesUnavailable
    from service.settings import SettingsError, read_settings
    from service.shutdown import Stopped, until_stopped
    from service.telemetry import set_up_logs

    try:
        if unusable := list(unusable_files()):
            raise SettingsError("\n".join(unusable))
        settings = read_settings()
        set_up_logs(settings.log_format, settings.log_level)
        log_ignored(logging.getLogger("service"), ignored)
        for missing in missing_certificates():
            logging.getLogger("service").warning(missing)
        running = command(settings)
        uvloop.run(running if handles_signals else until_stopped(running))
    except Stopped as stopped:
        return stopped.status
    except (SettingsError, BadFile) as error:
        print_error(error)
        return 2
    except (StoreError, StaleTerm, MigrationError, NotRepaired, PricesUnavailable) as error:
        print_error(error)
        return 1
    return 0


if __name__ == "__main__":
    run_and_exit(main, program="service")
