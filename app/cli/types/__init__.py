"""Types of the feed's records and the API's bodies in the languages of the clients.

`shapes` is what a type can be, `records` reads the models' published declarations, `api` reads the
OpenAPI document; `in_typescript` and `in_python` write. Nothing here knows the command line.
"""
