from datetime import UTC, datetime, timedelta

from app.recorder.messages import KernelClock

START = datetime(2026, 1, 1, tzinfo=UTC)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def test_a_busy_server_does_not_make_runs_long_or_short():
    clock = KernelClock()
    assert clock.here(START, START + seconds(0.001)) == START + seconds(0.001)
    # Sent at 1 s and read at 5 s, since the server was busy: it happened at 1 s.
    assert clock.here(START + seconds(1), START + seconds(5)) == START + seconds(1.001)


def test_another_clock_is_translated():
    clock, ahead = KernelClock(), seconds(7200)
    assert clock.here(START + ahead, START + seconds(0.01)) == START + seconds(0.01)
    later = clock.here(START + ahead + seconds(3), START + seconds(4))
    assert later == START + seconds(3.01)


def test_never_later_than_read_and_rubbish_is_when_it_was_read():
    clock = KernelClock()
    clock.here(START, START + seconds(5))
    read_at = START + seconds(6)
    assert clock.here(START + seconds(6), read_at) == read_at
    for rubbish in (None, "yesterday", START.replace(tzinfo=None)):
        assert clock.here(rubbish, read_at) == read_at
