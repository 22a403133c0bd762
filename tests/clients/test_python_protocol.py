"""The Python client's state machine, by the scenarios that both clients must pass."""

import json
from pathlib import Path

import pytest
from jupyter_datastore_client.feed import Feed
from jupyter_datastore_client.records import ID_COLUMNS

SCENARIOS = json.loads(
    (Path(__file__).parents[2] / "clients" / "scenarios.json").read_text("utf-8")
)


class Told:
    """Remembers what a live table would be told."""

    def __init__(self, subscription):
        self.subscription = subscription
        self.changes = []
        self.error = None
        self.completions = 0
        subscription.sinks.append(self)

    def completed(self):
        self.completions += 1

    def changed(self, changes):
        self.changes += [[c.op, c.id, sorted(c.changed)] for c in changes]

    def failed(self, error):
        self.error = error


class Player:
    def __init__(self):
        self.feed = Feed(lambda: None)
        self.told: dict[str, Told] = {}

    def play(self, step):
        (what, value), *more = step.items()
        getattr(self, f"do_{what}")(value, **dict(more))

    def do_subscribe(self, name, table, where=None, columns=None):
        key = ID_COLUMNS.get(table, ("id",))
        chosen = tuple(columns) if columns else None
        self.told[name] = Told(self.feed.subscribe(table, where or {}, chosen, key))

    def do_unsubscribe(self, name):
        self.feed.unsubscribe(self.told[name].subscription)

    def do_presence(self, data):
        self.feed.say_presence(data)

    def do_server(self, message):
        self.feed.received(message)

    def do_lost(self, _):
        self.feed.lost()

    def do_sent(self, messages):
        assert list(self.feed.outbox) == messages
        self.feed.outbox.clear()

    def do_complete(self, name):
        assert self.told[name].completions == 1
        assert self.told[name].subscription.complete

    def do_incomplete(self, name):
        assert self.told[name].completions == 0
        assert not self.told[name].subscription.complete

    def do_records(self, name, are):
        assert self.told[name].subscription.records == are

    def do_told(self, name, changes):
        told = self.told[name]
        assert told.changes == changes
        told.changes = []

    def do_cursor(self, name, **more):
        assert self.told[name].subscription.cursor == more["is"]

    def do_failed(self, name, reason):
        assert self.told[name].error.reason == reason


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_scenario(scenario):
    player = Player()
    for number, step in enumerate(scenario["steps"]):
        try:
            player.play(step)
        except AssertionError as error:
            raise AssertionError(f"step {number}: {step}\n{error}") from error
    assert all(told.changes == [] for told in player.told.values())
