"""The hub of the tests: three people, two groups, a service it runs and one that it does not."""

import json
import os
from pathlib import Path

c = get_config()  # noqa: F821 (JupyterHub defines it)
given = json.loads(os.environ["HUB_TEST"])

c.JupyterHub.bind_url = f"http://127.0.0.1:{given['port']}/base/"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{given['hub_port']}"
c.JupyterHub.db_url = "sqlite:///hub.sqlite"
c.JupyterHub.cookie_secret_file = str(Path("cookie_secret").resolve())
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{given['proxy_port']}"
c.ConfigurableHTTPProxy.command = given["proxy"]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = given["password"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"root"}
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.load_groups = {"physics": {"users": ["ada", "bob"]}, "art": {"users": ["cem"]}}
ACTIONS = ("read", "write", "execute", "share", "admin")
c.JupyterHub.custom_scopes = {
    f"custom:jupyter-datastore:{action}": {"description": f"{action} in the datastore"}
    for action in ACTIONS
}
c.JupyterHub.services = [
    {
        "name": "managed",
        "url": f"http://127.0.0.1:{given['managed_port']}",
        "command": given["command"],
        "environment": given["environment"],
        "oauth_no_confirm": True,
    },
    {
        "name": "external",
        "url": f"http://127.0.0.1:{given['external_port']}",
        "api_token": given["external_token"],
        "oauth_no_confirm": True,
        "oauth_client_allowed_scopes": [f"custom:jupyter-datastore:{a}" for a in ACTIONS],
    },
    {"name": "tester", "api_token": given["tester_token"], "admin": True},
    {"name": "machine", "api_token": given["machine_token"]},
]
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self"]},
    {
        "name": "people",
        "users": ["ada", "bob", "cem", "root"],
        "services": ["machine"],
        "scopes": ["access:services"],
    },
    {"name": "reader", "users": ["bob"], "scopes": ["custom:jupyter-datastore:read"]},
    {"name": "chief", "users": ["ada"], "scopes": ["custom:jupyter-datastore:admin"]},
    {"name": "managed", "services": ["managed"], "scopes": ["users:activity"]},
]
