"""Addresses of a PostgreSQL, and sessions with advisory locks, on a real server."""

import os
import threading
import time

import pytest

from churnlab.errors import InputError, JobError
from churnlab.tracking import postgres as module
from churnlab.tracking.postgres import Session, make_server, take_password
from support.postgres import PASSWORD, free_port
from support.waiting import until


def server(url, *, grace=10, patience=60):
    return make_server(url, grace=grace, patience=patience)


@pytest.fixture
def url(postgres) -> str:
    return postgres.url("locks")


@pytest.fixture
def opened(url):
    sessions = []

    def open_session(*, grace=10, awake_every=0.2, patience=60) -> Session:
        sessions.append(
            Session(server(url, grace=grace, patience=patience), awake_every=awake_every)
        )
        return sessions[-1]

    yield open_session
    for session in sessions:
        session.close()


# Addresses and passwords


def test_a_password_on_the_command_line_goes_to_the_environment(monkeypatch):
    monkeypatch.setenv(module.PASSWORD, "")
    words = take_password(["tune", "storage.url=postgresql://me:s%2Fe@host:1/x", "seed=1"])
    assert words == ["tune", "storage.url=postgresql://me@host:1/x", "seed=1"]
    assert os.environ[module.PASSWORD] == "s/e"
    assert server("postgresql://me@host:1/x").address.password == "s/e"


@pytest.mark.parametrize("word", ["storage.url=null", "storage.url=nonsense", "seed=1"])
def test_other_words_are_left_as_they_are(word):
    assert take_password([word]) == [word]


def test_a_server_is_named_without_user_and_password():
    named = server("postgresql+psycopg://me:secret@host/x")
    assert str(named) == "PostgreSQL at host:5432/x"
    assert "secret" not in repr(named)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "CHURNLAB_STORAGE_URL"),
        ("mysql://me@host/x", "not the address of a PostgreSQL database"),
        ("postgresql://me@host:port/x", "not the address of a PostgreSQL database"),
        ("postgresql://me:p@ss/w:rd#1@host:1/x", "storage.url contains several @.* percent-encod"),
    ],
)
def test_what_is_no_address_is_refused(url, says, monkeypatch):
    monkeypatch.delenv(module.ADDRESS, raising=False)
    with pytest.raises(InputError, match=says) as refused:
        server(url)
    assert "w:rd" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("se%2Fcret%3A1", "wrong"), "does not let this user in"),
        (("/locks", "/nowhere"), "has no such user or database"),
        ((":%d/", f":{free_port()}/"), "does not answer: start it"),
        (("/locks", "/locks?no=1"), "storage.url cannot be used: .*no"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_in_one_sentence(postgres, url, change, says):
    before, after = change
    before = before.replace("%d", str(postgres.port))
    assert before in url
    with pytest.raises(InputError, match=says) as refused:
        server(url.replace(before, after)).connect()
    text = str(refused.value)
    assert "\n" not in text
    assert not any(word in text for word in ("FATAL", "libpq", PASSWORD, "wrong"))


def test_a_database_may_have_a_name_that_an_address_must_escape(postgres):
    url = postgres.url("a b/c?")
    with server(url).connect() as connection:
        assert connection.execute("SELECT current_database()").fetchone() == ("a b/c?",)
    with server(f"{url}?options=-csearch_path%3Dours").connect() as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("ours",)


# Locks


def test_a_lock_belongs_to_one_session_until_it_ends(opened):
    first, second = opened(), opened()
    assert first.try_lock("door")
    assert first.try_lock("door"), "it is its own"
    assert not second.try_lock("door")
    first.close()
    until(lambda: second.try_lock("door"), "the lock", seconds=5)


def test_a_shared_lock_has_many_holders(opened):
    first, second = opened(), opened()
    assert first.try_lock("seats", shared=True)
    assert first.is_only_holder("seats")
    assert second.try_lock("seats", shared=True)
    assert not first.is_only_holder("seats")
    second.unlock("seats")
    assert first.is_only_holder("seats")


def test_who_waits_for_a_lock_gets_it_when_it_is_free(opened):
    first, second = opened(), opened()
    first.lock("door")
    threading.Timer(0.5, first.unlock, ["door"]).start()
    second.lock("door", waiting="waiting")
    assert not first.try_lock("door")


def test_a_session_that_sleeps_beyond_the_grace_period_has_lost_its_locks(opened):
    sleeping, other = opened(grace=1, awake_every=3), opened()
    assert sleeping.try_lock("door")
    assert not other.try_lock("door")
    until(lambda: other.try_lock("door"), "the lock", seconds=2.9)
    time.sleep(3)
    assert not sleeping.try_lock("door"), "it has woken up, and believes that it has the lock"
    other.unlock("door")
    until(lambda: sleeping.try_lock("door"), "the lock again", seconds=10)


def test_a_session_takes_its_locks_back_after_a_restart_of_the_server(postgres, opened):
    first = opened()
    assert first.try_lock("door")
    assert first.try_lock("seats", shared=True)
    postgres.stop()
    threading.Timer(1, postgres.start).start()
    assert first.is_only_holder("unheard of"), "it has waited for the server"
    second = opened()
    assert not second.try_lock("door")
    assert not second.is_only_holder("seats")


def test_a_server_that_stays_away_ends_the_work_in_one_sentence(postgres, opened):
    session = opened(patience=1)
    postgres.stop()
    try:
        with pytest.raises(JobError, match="has not answered for .* run the same command again"):
            session.lock("door")
    finally:
        postgres.start()
    session.lock("door")
