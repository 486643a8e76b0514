"""Side by side with what people use today: throughput, small files, the wait of others, memory of stalled readers.

```
python -m tests.benchmarks [scenario ...] [--rounds N] [--size 1GiB] [--json FILE]
```

No test: pytest collects nothing here. Linux, with `nginx` and `wrk` installed. The machine is shared by servers and
clients, so only figures of one run compare, and the tables show ratios: each is the median over the rounds of a peer's
figure divided by the other's in the same round.
"""
