"""Every exception that zcresponse raises of its own.

```
Exception
└── ZeroCopyError
    ├── SettingError (also ValueError)        an environment variable holds what cannot be meant
    ├── NotARegularFileError (also OSError)   a directory, FIFO, socket or device was given
    ├── FileTruncatedError (also OSError)     a file turned out shorter than the length that was promised
    └── DeliveryError (also RuntimeError)     a message that cannot be delivered: out of order, longer or shorter
                                              than its Content-Length
```

Other `OSError`s (no such file, no permission, no descriptors left) pass through unchanged. A caller's mistake is a
`TypeError` or `ValueError` that names the argument. What the peer sends is never an exception.
"""

from __future__ import annotations

__all__ = ["DeliveryError", "FileTruncatedError", "NotARegularFileError", "SettingError", "ZeroCopyError"]


class ZeroCopyError(Exception):
    """The root of zcresponse's own exceptions."""


class SettingError(ZeroCopyError, ValueError):
    """An environment variable holds what cannot be meant; it is named."""


class NotARegularFileError(ZeroCopyError, OSError):
    """What was to be sent is a directory, FIFO, socket or device."""


class FileTruncatedError(ZeroCopyError, OSError):
    """The file ended before the promised number of bytes; the connection cannot be kept."""


class DeliveryError(ZeroCopyError, RuntimeError):
    """A response message that cannot be delivered as it stands; nothing of its body was sent."""
