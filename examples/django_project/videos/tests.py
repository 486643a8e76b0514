"""The same answers as from a server, by Django's own clients; and what a server is given."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import httpx
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.test import TestCase, override_settings

from videos.models import Video
from zcresponse.django import get_wsgi_application
from zcresponse.testing import FileWrapperServer

CONTENT = bytes(range(256)) * 1000


class DownloadTest(TestCase):
    """Who gets what of a video."""

    def setUp(self) -> None:
        media = self.enterContext(TemporaryDirectory())
        self.enterContext(override_settings(MEDIA_ROOT=media))
        self.ann = User.objects.create_user("ann")
        self.bob = User.objects.create_user("bob")
        video = Video.objects.create(owner=self.ann, file=ContentFile(CONTENT, "clip.mp4"))
        self.address = f"/{video.pk}/download"

    def test_the_owner_gets_the_file(self) -> None:
        self.client.force_login(self.ann)
        response = self.client.get(self.address)
        assert response.getvalue() == CONTENT
        assert response["Content-Disposition"] == 'attachment; filename="clip.mp4"'

    def test_a_download_can_be_resumed(self) -> None:
        self.client.force_login(self.ann)
        response = self.client.get(self.address, headers={"Range": "bytes=200000-"})
        assert response.status_code == 206
        assert response.getvalue() == CONTENT[200_000:]

    async def test_asynchronously_too(self) -> None:
        await self.async_client.aforce_login(self.ann)
        response = await self.async_client.get(self.address, headers={"Range": "bytes=-56"})
        assert response.status_code == 206
        assert response.getvalue() == CONTENT[-56:]

    def test_the_server_is_given_the_file(self) -> None:
        # Django's own clients know no server; this one calls the project's WSGI application.
        server = FileWrapperServer(get_wsgi_application())
        self.client.force_login(self.ann)
        cookies = {name: morsel.value for name, morsel in self.client.cookies.items()}
        transport = httpx.WSGITransport(app=server)
        with httpx.Client(transport=transport, base_url="http://testserver", cookies=cookies) as client:
            response = client.get(self.address, headers={"Range": "bytes=200000-"})
        assert response.content == CONTENT[200_000:]
        assert [(given.offset, given.count) for given in server.handed_over] == [(200_000, 56_000)]

    def test_nobody_else_gets_it(self) -> None:
        assert self.client.get(self.address).status_code == 302
        self.client.force_login(self.bob)
        assert self.client.get(self.address).status_code == 404
