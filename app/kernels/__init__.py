"""Kernels that run here: starting, watching, talking to them, and their queues of executions."""
