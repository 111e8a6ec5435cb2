"""How a job says that the disk failed: the reason decides, and libraries wrap it."""

import errno

import pytest

from churnlab.cli.jobs import failure_in_words


def wrapped(reason: Exception) -> Exception:
    """Return an error of MLflow's that was raised from a reason, which its text repeats."""
    try:
        raise RuntimeError(f"(sqlite3.OperationalError) {reason}\n[SQL: UPDATE runs]") from reason
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full"),
        (Exception("database or disk is full"), "The disk is full"),  # a quota shows no full disk
        (OSError(errno.EIO, "Input/output error"), "failed (input/output error)"),
        (Exception("disk I/O error"), "failed (input/output error)"),
    ],
)
def test_a_disk_that_is_full_or_fails_is_one_paragraph(monkeypatch, tmp_path, reason, words):
    monkeypatch.setenv("CHURNLAB_HOME", str(tmp_path))
    message = failure_in_words(wrapped(reason))
    assert words in message
    assert str(tmp_path) in message
    assert "run the same command again" in message
    assert "SQL" not in message


def test_another_error_keeps_its_own_words(monkeypatch, tmp_path):
    monkeypatch.setenv("CHURNLAB_HOME", str(tmp_path))
    assert "permission" in failure_in_words(wrapped(OSError(errno.EACCES, "permission denied")))
