"""Which Django these tests are run with."""

from __future__ import annotations

import sys

import django
import pytest


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Django 6.0 asks for Python 3.12")
@pytest.mark.skipif(sys.prefix.endswith("-floor"), reason="the oldest supported releases")
def test_a_python_that_can_have_the_newest_django_has_it() -> None:
    assert django.VERSION >= (6, 0)
