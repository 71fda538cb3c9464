"""The lease protocol in an event-queue simulation: the production state machine under faults, with oracles."""
