"""`python -P -m sidecar exec`: a program in any language that runs only while its task leads a lease."""
