"""Builds the wheel and the sdist, installs the wheel on each Python of this machine, and tests the contents of both."""
