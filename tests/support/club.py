"""A table with every kind of column, which is nothing like a gym's."""

import numpy as np
import pandas as pd

CLUB = """
name: club
path: null
target: left
positive: "yes"
id: card
extra: refuse
columns:
  plan: {kind: category, values: [basic, gold, "don't know"]}
  city: {kind: category}
  district: {kind: category}
  offer: {kind: category, values: ["1", "01", "None"]}
  vip: {kind: binary}
  news: {kind: binary}
  joined: {kind: date, format: DD.MM.YYYY, before: 2026-05-01}
  paid: {kind: numeric, format: "1.234,5", min: 0, unit: EUR}
  age: {kind: numeric, min: 14, max: 100, whole: true}
  score: {kind: numeric, missing: ["999"]}
  first_visit: {kind: numeric, min: 0, unit: days}
  last visit: {kind: numeric, min: 0, unit: days}
rules:
  order: first_visit <= `last visit`
late: []
"""


def club_members(n: int, *, seed: int) -> pd.DataFrame:
    """Return members as a CSV file has them, whose gaps are in ``score`` and ``city``."""
    rng = np.random.default_rng(seed)
    plan = rng.choice(["basic", "gold", "don't know"], n)
    first = np.round(rng.uniform(0, 300, n), 1)
    last = first + np.round(rng.gamma(2, 40, n), 1)
    days = pd.Timestamp("2026-04-30") - pd.to_timedelta(rng.integers(0, 900, n), unit="D")
    risk = (plan == "basic") * 1.5 - (last - first) / 60 + rng.logistic(0, 0.7, n)
    cities = pd.Series(rng.choice(["Omsk", "Perm", "Tver", ""], n))
    scores = pd.Series(rng.integers(0, 50, n)).where(rng.random(n) > 0.1, 999)
    return pd.DataFrame(
        {
            "card": [f"{number:04d}" for number in range(n)],
            "plan": plan,
            "city": cities,
            "district": np.resize(["007", "12", "0500"], n),
            "offer": np.resize(["1", "01", "None", "None"], n),
            "vip": rng.integers(0, 2, n),
            "news": np.resize(["yes", "no", "no"], n),
            "joined": days.strftime("%d.%m.%Y"),
            "paid": [f"{number // 1000}.{number % 1000:03d},5" for number in 1000 + np.arange(n)],
            "age": rng.integers(14, 90, n),
            "score": scores,
            "first_visit": first,
            "last visit": last,
            "left": np.where(risk > 0, "yes", "no"),
        }
    )
