"""Side by side with what people use today: throughput, small files, the wait of others, memory, growth.

```
python -m tests.benchmarks [scenario ...] [--rounds N] [--size 1GiB] [--json FILE] [--plots DIRECTORY]
```

On the machinery of `zcresponse.bench` and with its peers; further servers are those of `tests.support`. No test: pytest
collects nothing here. Linux, with `wrk` installed, and `nginx`, which is left out where it is not. The machine is
shared by servers and clients, so only figures of one run compare, and the tables show ratios: each is the median over
the rounds of a peer's figure divided by the other's in the same round.
"""
