"""The commands run, import, fence, token and sample of `python -m service`."""
