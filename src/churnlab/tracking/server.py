"""Reach an MLflow server: before the work, while it restarts, and when it is gone for good."""

from __future__ import annotations

import logging
import os
from urllib.parse import parse_qs, urlsplit

import requests
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES as RETRIES
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe

from churnlab.errors import InputError, exception_chain

log = logging.getLogger(__name__)

AT_THE_START = 2
"""How often a server that does not answer at the start of a command is tried again, in some
seconds. In the midst of its work a command tries as often as MLflow does, which takes minutes."""

ANSWERED = "CHURNLAB_SERVER"
"""The environment variable with the address of a server that has answered this command or the one
that started this process: it is there, so it is waited for."""

NO_LOGIN, NO_RIGHTS = 401, 403
"""The statuses by which a server refuses whom it does not know, and what somebody may not do."""


def check_address(uri: str) -> None:
    """Refuse an address with a password: it would stand in every run and message."""
    user = uri.partition("://")[2].rpartition("@")[0]  # even of an address that is not well written
    if ":" not in user and "password" not in parse_qs(urlsplit(uri).query):
        return
    instead = (
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        if uri.startswith("http")
        else "let the database's driver find it: PostgreSQL's in PGPASSWORD or ~/.pgpass"
    )
    raise InputError(
        "The address of the store, tracking.uri or MLFLOW_TRACKING_URI, contains a password, which "
        f"every run would record. Leave it out, and {instead}."
    )


def check(uri: str) -> None:
    """Refuse a server that does not answer, or not this user, before the work."""
    logging.getLogger("urllib3.connectionpool").addFilter(_say_once)
    if os.environ.get(ANSWERED) == uri:
        return
    search = (get_default_host_creds(uri), "/api/2.0/mlflow/experiments/search", "GET")
    again = min(AT_THE_START, RETRIES.get())
    try:
        http_request_safe(*search, params={"max_results": 1}, max_retries=again, timeout=10)
    except MlflowException as error:
        if refused := refusal(error):
            raise InputError(refused) from None
        raise InputError(
            f"No MLflow server answers at {uri}. Start it or correct the address: tracking.uri, or "
            "MLFLOW_TRACKING_URI, which wins."
        ) from None
    os.environ[ANSWERED] = uri


def refusal(error: BaseException) -> str | None:
    """Say why a server refused who sent a request; None if the error is of another kind."""
    found = {status for reason in exception_chain(error) if (status := _status(reason))}
    if NO_LOGIN in found:
        return (
            "The MLflow server does not know this user: it refused the name or the password. Set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if NO_RIGHTS in found:
        return (
            "The MLflow server refused the request: this user may not do it, or the server does "
            "not accept the name by which it is called (its option --allowed-hosts)."
        )
    return None


def failure(error: BaseException) -> str | None:
    """Say that a server is gone, and how to go on; None if the error has another cause."""
    if not is_gone(error):
        return None
    return (
        "The MLflow server does not answer any more, or only with errors, which its own log "
        "explains. What was finished is kept; start it and run the same command again."
    )


def is_gone(error: BaseException) -> bool:
    """Return whether a request failed, after all repetitions, without an answer of the server."""
    broken = requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError
    return any(
        isinstance(reason, broken)
        or (isinstance(reason, MlflowException) and "Max retries exceeded" in str(reason))
        for reason in exception_chain(error)
    )


def raise_unanswered(error: Exception) -> None:
    """Raise an error again that says nothing of the files that were wanted: the server is gone,
    or refused the request."""
    if is_gone(error) or refusal(error):
        raise error


def wait_no_longer(error: BaseException) -> None:
    """Try each request only once from now on if the server is gone: what is left is to say so."""
    if is_gone(error):
        os.environ[RETRIES.name] = "0"


def _status(error: BaseException) -> int | None:
    """Return the HTTP status of an answer that MLflow or requests made an exception of."""
    if isinstance(error, MlflowException):
        return error.get_http_status_code()
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _say_once(record: logging.LogRecord) -> bool:
    """Log the first of the repetitions of a request in plain words, and leave out the others."""
    if not str(record.msg).startswith("Retrying"):
        return True
    retry = record.args[0] if isinstance(record.args, tuple) else None
    if len(getattr(retry, "history", ())) == 1:
        log.warning("The MLflow server does not answer; waiting for it.")
    return False
