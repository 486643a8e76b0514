"""A video and who may see it."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import FileExtensionValidator
from django.db import models


class Video(models.Model):
    """A file that somebody uploaded."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    # Only types that a browser plays and never runs: it gets them from our own address.
    file = models.FileField(upload_to="videos/", validators=[FileExtensionValidator(["mp4", "wav", "webm"])])
