"""Builds the packages, installs them on each Python of this machine, and tests their contents."""
