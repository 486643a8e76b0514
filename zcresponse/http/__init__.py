"""HTTP's words as values: header fields in, small immutable values out, and back.

What may not live here:

- anything that opens, reads or asks the machine: no ``os``, no ``io``, no media types of the host, no locale;
- a clock: whoever needs to know the time is given ``now``, in seconds since the epoch (``now_ns`` in nanoseconds);
- a framework, a server, a status code: this package says "not modified" or "unsatisfiable", the plan says 304 or 416.

A header field that a client wrote badly is a value here (absent, ignored, unsatisfiable) and never an exception.
Exceptions are kept for the caller's own mistakes and name the argument.

Import from the modules; this package re-exports nothing.
"""
