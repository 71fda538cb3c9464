"""Whole tasks from `task-definition.json` under random real faults and deploys, and what must be so all the while."""
