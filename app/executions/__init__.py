"""Executions: asking for them, finding them, waiting for them, answering their questions."""
