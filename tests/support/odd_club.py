"""A club whose table is written as people write: semicolons, decimal commas, euros, days, bands."""

import numpy as np
import pandas as pd


def euros(amount: float) -> str:
    """Write an amount as 1.234,50 €."""
    return f"{amount:,.2f}".translate(str.maketrans(",.", ".,")) + " €"


def odd_club(n: int, *, seed: int) -> pd.DataFrame:
    """Draw members as text, with a third status and gaps in several words."""
    rng = np.random.default_rng(seed)
    joined = pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 2500, n), unit="D")
    visits = rng.gamma(2, 1.5, n).round(1)
    band = rng.choice(["1-3", "4-6", "10-12", "13+"], n)
    offer = rng.choice(["Gold", "Basic", "None"], n)
    pays = rng.choice(["Yes", "No"], n)
    risk = 0.8 - 0.6 * visits + 1.2 * (offer == "None") - (pays == "Yes") + (band == "1-3")
    left = risk + rng.logistic(0, 0.8, n) > 0
    status = np.where(left, "Churned", np.where(rng.random(n) < 0.08, "Joined", "Stayed"))
    table = pd.DataFrame(
        {
            "Card No": [f"K-{number:05d}" for number in range(n)],
            "Joined on": joined.strftime("%d.%m.%Y"),
            " Paid ": [euros(amount) for amount in np.exp(rng.normal(6.5, 1, n)).clip(1, 9e3)],
            "Visits": [str(number).replace(".", ",") for number in visits.clip(0, 12)],
            "Months": band,
            "Town": [f"Town {number}" for number in rng.integers(0, 60, n)],
            "Offer": offer,
            "Pays itself": pays,
            "Customer Status": status,
        }
    )
    table.loc[rng.random(n) < 0.05, "Visits"] = "?"
    table.loc[rng.random(n) < 0.05, " Paid "] = "  "
    return table
