"""`python -m ops.local`: the tasks of `task-definition.json` on this machine, until Ctrl-C."""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing runs yet: end without a traceback

    from ops.local.command import main
    from runtime.command_line import prepare_streams

    prepare_streams()
    sys.exit(main())
