"""All addresses of the project."""

from __future__ import annotations

from django.contrib.auth.views import LoginView
from django.urls import path
from videos import views

urlpatterns = [
    path("login/", LoginView.as_view(), name="login"),
    path("", views.uploads, name="uploads"),
    path("<int:pk>/", views.watch, name="watch"),
    path("<int:pk>/video", views.video, name="video"),
    path("<int:pk>/download", views.download, name="download"),
]
