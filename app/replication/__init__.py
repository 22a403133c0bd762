"""Copies of this database elsewhere: replicas by logical replication, and a stream of changes.

Run by an operator's commands, synchronously and with the rights of the database's owner; the
server itself takes no part in it.
"""
