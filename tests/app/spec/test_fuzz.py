"""Requests made from the API document, as odd as hypothesis can think of: never a 5xx."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies
from schemathesis import openapi

from app.main import create_app
from app.settings import Settings
from app.spec.document import openapi_document
from tests.conftest import TOKEN
