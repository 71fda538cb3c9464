"""`python -m tests.support.impatient MODULE` runs the module, which then logs its metrics every 0.2 s."""

import runpy
import sys

from runtime import metric_lines

metric_lines.INTERVAL = 0.2
module, *sys.argv[1:] = sys.argv[1:]
runpy.run_module(module, run_name="__main__", alter_sys=True)
