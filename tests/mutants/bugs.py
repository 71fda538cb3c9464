"""All bugs that are seeded into production modules."""

from tests.mutants import (
    client_bugs,
    command_bugs,
    listener_bugs,
    login_bugs,
    page_bugs,
    portfolio_bugs,
    price_bugs,
    redis_kind_bugs,
    redis_login_bugs,
    run_bugs,
    service_bugs,
    sidecar_bugs,
    step_down_bugs,
    wrapper_bugs,
)

BUGS = [
    *client_bugs.BUGS,
    *sidecar_bugs.BUGS,
    *step_down_bugs.BUGS,
    *redis_kind_bugs.BUGS,
    *listener_bugs.BUGS,
    *login_bugs.BUGS,
    *page_bugs.BUGS,
    *redis_login_bugs.BUGS,
    *service_bugs.BUGS,
    *portfolio_bugs.BUGS,
    *price_bugs.BUGS,
    *wrapper_bugs.BUGS,
    *command_bugs.BUGS,
    *run_bugs.BUGS,
]
