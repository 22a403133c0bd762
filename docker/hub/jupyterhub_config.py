"""JupyterHub for docker/compose.yaml, with the server as a service that people log in to.

docs/jupyterhub.md says what each part is for.
"""

import os

c = get_config()  # noqa: F821 (JupyterHub defines it)

# Compose gives an empty one for what is not set, and an empty password lets everybody in.
for needed in ("HUB_PASSWORD", "DATASTORE_HUB_API_TOKEN"):
    if not os.environ.get(needed):
        raise SystemExit(f"{needed} is not set: docker/compose.yaml says where")

c.JupyterHub.bind_url = "http://0.0.0.0:8000"
c.JupyterHub.hub_bind_url = "http://0.0.0.0:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"

# For trying it out: any name, and the password in HUB_PASSWORD. Put your own authenticator here.
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = os.environ["HUB_PASSWORD"]
c.Authenticator.allow_all = True

# The same token as in the service's JUPYTERHUB_API_TOKEN.
c.JupyterHub.services = [
    {
        "name": "datastore",
        "url": "http://hub-server:8888",
        "api_token": os.environ["DATASTORE_HUB_API_TOKEN"],
        "oauth_no_confirm": True,
        "display": True,
    }
]
c.JupyterHub.load_roles = [
    # Everybody may use it. Groups and who is an admin need no scope: the hub says them of whoever
    # logs in.
    {"name": "user", "scopes": ["self", "access:services!service=datastore"]},
    # It tells the hub who was active.
    {"name": "datastore", "services": ["datastore"], "scopes": ["users:activity"]},
]

# People work in the service; nobody needs a server of their own.
c.JupyterHub.default_url = "/services/datastore/"
