"""The version of the project. The wheel and the API's descriptions read it from this module."""

__version__ = "0.2.0"
