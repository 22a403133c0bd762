"""Comms over HTTP and websockets: reading them, opening them, speaking on them, closing them."""
