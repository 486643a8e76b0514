"""Pages and files, for those who are logged in, and to everybody only their own."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.forms import modelform_factory
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from videos.models import Video
from zcresponse.django import ZeroCopyFileResponse

VideoForm = modelform_factory(Video, fields=["file"])


def get_video(request: HttpRequest, pk: int) -> Video:
    """Return a video of the user's own. That others exist is nobody's business: 404."""
    return get_object_or_404(Video, pk=pk, owner=request.user)


@login_required
def uploads(request: HttpRequest) -> HttpResponse:
    """The user's videos, and a form to add one."""
    form = VideoForm(request.POST or None, request.FILES or None, instance=Video(owner=request.user))
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("uploads")
    videos = Video.objects.filter(owner=request.user)
    return render(request, "videos/uploads.html", {"form": form, "videos": videos})


@login_required
def watch(request: HttpRequest, pk: int) -> HttpResponse:
    """A page with a player."""
    return render(request, "videos/watch.html", {"video": get_video(request, pk)})


@login_required
def video(request: HttpRequest, pk: int) -> ZeroCopyFileResponse:
    """What the player plays. To seek, it asks for ranges."""
    return ZeroCopyFileResponse(get_video(request, pk).file, private=True)


@login_required
def download(request: HttpRequest, pk: int) -> ZeroCopyFileResponse:
    """The same file, to be saved. A download that broke off is resumed by a range."""
    return ZeroCopyFileResponse(get_video(request, pk).file, as_attachment=True, private=True)
