"""The version of the project, said here only: the wheel and the API's descriptions read it."""

__version__ = "0.1.0"
