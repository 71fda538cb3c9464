"""A program with etcd's own election: `python -m bench.handover.candidates.etcd URL [TTL]`.

The lock of etcd3gw cannot wait for its turn, so the program calls the server's election through etcd3gw. A thread
renews the lease three times per lease duration, as etcd's client for Go does. Without TTL (in seconds) the lease lasts
60 s, the default of etcd's client.
"""

import base64
import sys
import threading
import time
from urllib.parse import urlsplit

import etcd3gw

from bench.handover.candidates.stage import now, prepare, report, turns, work

TTL = 60


def text(words: str) -> str:
    """Return a text as etcd's JSON encodes it."""
    return base64.b64encode(words.encode()).decode()


def main(url: str, ttl: int) -> None:
    """Campaign after each line on standard input."""
    prepare()
    address = urlsplit(url)
    client = etcd3gw.client(host=address.hostname, port=address.port)
    report("renewed", now())
    lease = client.lease(ttl)

    def renew() -> None:
        while True:
            time.sleep(ttl / 3)
            report("renewed", now())
            lease.refresh()

    threading.Thread(target=renew, daemon=True).start()
    candidate = {"name": text("bench"), "lease": lease.id, "value": text("candidate")}
    for _ in turns():
        elected = client.post(client.get_url("/election/campaign"), json=candidate)
        ended = work()
        client.post(client.get_url("/election/resign"), json={"leader": elected["leader"]})
        report("ended", ended)


if __name__ == "__main__":
    main(sys.argv[1], round(float(sys.argv[2])) if len(sys.argv) > 2 else TTL)
