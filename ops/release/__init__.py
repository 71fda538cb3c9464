"""Builds the packages, installs them on each Python of this machine, and tries what they contain."""
