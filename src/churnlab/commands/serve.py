"""Answer requests with the champion, strictly and fast, and follow it when it is replaced.

Why: a system that asks about one member at a time needs each answer to be right and to say from
which version it is. The version's files are verified before anything of them is imported; a request
that breaks the dataset's contract gets a reason and no number; a new champion answers within
seconds, unless its check fails. CHURNLAB_SERVE_TOKEN holds a token that requests must have.

    churnlab serve
    churnlab serve dataset=gym port=8080 serve.workers=2
    churnlab serve model_uri=models:/gym-churn/3 host=0.0.0.0 'serve.hosts=[churn.example.com]'
"""

from __future__ import annotations

import re

from churnlab.config.commands import Result, Serve
from churnlab.errors import Refused
from churnlab.registry.champion import find_model, resolve
from churnlab.serving import server
from churnlab.serving.current import Source


def run(settings: Serve) -> Result:
    """Choose the version, take the port, and serve until a signal comes."""
    source = _source(settings)
    if source is None:
        return Result({"version": None}, yes=False)
    with server.listening(settings.host, settings.port) as listener:
        server.serve(source, settings.serve, listener, host=settings.host)
    return Result({"version": None})


def _source(settings: Serve) -> Source | None:
    """Return the version to serve and its alias; None, with a message, if there is none."""
    uri = settings.model_uri
    if uri is None:
        model = find_model(settings.dataset.name if settings.dataset else None)
        if model is None:
            return None
        if "champion" not in model.aliases:
            raise Refused(
                f"{model.name} has no champion: its version was deleted. Run churnlab promote, or "
                "name a version with model_uri=models:/NAME/VERSION."
            )
        uri = f"models:/{model.name}@champion"
    found = resolve(uri)
    named = re.fullmatch(r"models:/([^/@]+)(?:/\d+|@(.+))", uri)
    name, alias = named.groups() if named else ("model", None)
    return Source(found.uri, name, alias, settings.model.unverified)
