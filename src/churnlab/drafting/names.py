"""Read the names of columns as a colleague does: the words of a name, and what they say."""

from __future__ import annotations

import re

PLACES = {"zip", "zipcode", "postcode", "postal", "plz", "pincode"}
"""Words in names of codes whose digits are no numbers."""

COUNTERS = {"row", "rows", "rownum", "rownumber", "index", "idx", "unnamed", "line", "seq", "rank"}
"""Words in names of columns that count the rows."""

IDENTIFIERS = {
    *("id", "ids", "uuid", "guid", "key", "no", "nr", "num", "number", "code", "msisdn"),
    *("nummer", "numero", "número", "ид", "номер", "код"),
    *("identifier", "identifiant", "identificador"),
}
"""Words in names of identifiers."""

SOMEBODY = {
    *("customer", "client", "member", "user", "account", "subscriber", "employee", "reader"),
    *("policy", "contract", "card", "person", "patient", "student", "guest", "shopper", "buyer"),
    *("phone", "email", "mail", "login", "passport", "cust", "kunden", "клиент", "договор"),
}
"""Words for whom or what an identifier identifies."""


AGES = {"age", "ages", "alter", "edad", "âge", "idade", "возраст"}
"""Words in names of ages."""

COUNTS = {
    *("tenure", "days", "weeks", "months", "years", "hours", "minutes", "seconds", "monate"),
    *("jahre", "tage", "visits", "calls", "orders", "logins", "purchases", "sessions", "tickets"),
    *("children", "kids", "dependents", "count", "qty", "quantity", "месяцев", "лет"),
}
"""Words in names of durations and numbers of things, which are never negative."""

COMPARED = {
    *("change", "diff", "difference", "delta", "growth", "trend", "net", "to", "until", "till"),
    *("since", "last", "left", "remaining", "overdue", "before", "after", "vs", "ago", "next"),
}
"""Words in names of differences, which may be negative, or negative for a reason."""


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case.

    >>> words_of("CustomerId"), words_of("has_left?"), words_of("Churn Value")
    (['customer', 'id'], ['has', 'left'], ['churn', 'value'])
    """
    spaced = re.sub(r"(?<=[a-zа-я0-9])(?=[A-ZА-Я])", " ", name)
    return re.findall(r"[^\W_]+", spaced.casefold())


def names_identifier(name: str) -> bool:
    """Return whether a name is that of an identifier.

    >>> [names_identifier(name) for name in ("CustomerId", "RowNumber", "wage", "CLIENTNUM")]
    [True, False, False, True]
    """
    words = words_of(name)
    if not words or {*words} & COUNTERS:
        return False
    last = words[-1]
    whole = "".join(words)
    return (
        last in IDENTIFIERS
        or (len(words) == 1 and last in SOMEBODY)
        or any(whole in {f"{one}{tail}" for tail in IDENTIFIERS} for one in SOMEBODY)
        or (words[0] == "id" and names_somebody(name))
        or words[0] in ("ид", "номер", "код")
    )


def names_id(name: str) -> bool:
    """Return whether a name is id, or that of a member: customer id, but not phone or order id.

    >>> [names_id(name) for name in ("ID", "customerId", "phone", "order_id")]
    [True, True, False, False]
    """
    words = words_of(name)
    return bool(words) and words[-1] == "id" and (len(words) == 1 or names_somebody(name))


def names_somebody(name: str) -> bool:
    """Return whether a name has the word for a member."""
    starts = [*words_of(name), "".join(words_of(name))]
    return any(start.startswith(one) for start in starts for one in SOMEBODY)


def names_place(name: str) -> bool:
    """Return whether a name is that of postal codes."""
    return bool({*words_of(name)} & PLACES)


def names_counter(name: str) -> bool:
    """Return whether a name is that of a row counter."""
    return not (words := words_of(name)) or bool({*words} & COUNTERS)


def names_age(name: str) -> bool:
    """Return whether a name is that of an age, and not of a difference of ages."""
    return bool({*words_of(name)} & AGES) and not {*words_of(name)} & COMPARED


def names_count(name: str) -> bool:
    """Return whether a name is that of a duration or a number of things, never negative.

    >>> [names_count(name) for name in ("tenure", "days_to_renewal", "calls change", "balance")]
    [True, False, False, False]
    """
    return bool({*words_of(name)} & COUNTS) and not {*words_of(name)} & COMPARED
