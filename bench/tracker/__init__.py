"""The tracker and the EOD capture at scale, compared with the limit: `python -m bench.tracker [PORTFOLIOS ...]`.

Runs the service's own code on a new Postgres with durable writes. The limit of a tick is the sum of two measurements in
the same run: the plain COPY of the same rows into a table like `portfolio_live`, committed, and the valuation alone in
NumPy. Ticks, COPYs and valuations take turns.
"""
