"""The versions of Redis and Valkey that the sidecar is tested on."""
