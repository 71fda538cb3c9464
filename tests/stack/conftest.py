"""The tests of this folder are ignored unless cfn-lint, moto and compose_viz are installed.

`make aws` installs them; `make test` does not need them.
"""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("moto") and find_spec("cfnlint") and find_spec("compose_viz") else ["test_*.py"]
