"""A program with kazoo's election on ZooKeeper: `python -m bench.handover.candidates.zookeeper ADDRESS [TTL]`.

Without TTL (in seconds) the session has kazoo's default of 10 s.
"""

import sys

from kazoo.client import KazooClient

from bench.handover.candidates.stage import prepare, report, turns, work


def main(address: str, ttl: float | None) -> None:
    """Campaign after each line on standard input."""
    prepare()
    client = KazooClient(address, **({"timeout": ttl} if ttl else {}))
    client.start()
    election = client.Election("/bench")
    ended = 0.0

    def lead() -> None:
        nonlocal ended
        ended = work()

    for _ in turns():
        election.run(lead)
        report("ended", ended)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None)
