"""Generate tables with the columns and quirks of well-known public churn tables, rows invented.

Each table has curves and interactions that a straight line cannot follow.
"""

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.random import Generator


class LookAlike(NamedTuple):
    """A table as its file holds it, and what a person sees at once: target, positive value, id.

    ``left_out`` are columns that no model may use: leaks, constants, row counters, free text.
    """

    table: pd.DataFrame
    target: str
    positive: Any
    id: str | None
    left_out: tuple[str, ...] = ()
    separator: str = ","
    decimal: str = "."

    def write(self, folder: Path, name: str) -> Path:
        """Write the table as CSV; return the file."""
        file = folder / f"{name}.csv"
        self.table.to_csv(file, index=False, sep=self.separator, decimal=self.decimal)
        return file


def _leaves(rng: Generator, logit: np.ndarray, rate: float) -> np.ndarray:
    """Draw who leaves, with the logits shifted so that about this share does."""
    low, high = -30.0, 30.0
    while high - low > 1e-6:
        shift = (low + high) / 2
        low, high = (
            (low, shift) if np.mean(1 / (1 + np.exp(-logit - shift))) > rate else (shift, high)
        )
    return rng.random(len(logit)) < 1 / (1 + np.exp(-logit - low))


def _yes(rng: Generator, n: int, share: float = 0.5) -> np.ndarray:
    return np.where(rng.random(n) < share, "Yes", "No")


def _codes(rng: Generator, n: int, pattern: str) -> list[str]:
    """Return n distinct codes: A is a letter, 9 a digit of the pattern."""
    kinds = {"A": list(string.ascii_uppercase), "9": list(string.digits)}
    found: dict[str, None] = {}
    while len(found) < n:
        found["".join(str(rng.choice(kinds[c])) if c in kinds else c for c in pattern)] = None
    return list(found)


def _services(rng: Generator, n: int) -> dict[str, np.ndarray]:
    """Return the services of a telecom, "No internet service" where there is none."""
    internet = rng.choice(["DSL", "Fiber optic", "No"], n, p=[0.35, 0.44, 0.21])
    phone = _yes(rng, n, 0.9)
    lines = np.where(phone == "No", "No phone service", _yes(rng, n, 0.45))
    names = ("OnlineSecurity", "OnlineBackup", "DeviceProtection", "TechSupport", "StreamingTV")
    without = {
        name: np.where(internet == "No", "No internet service", _yes(rng, n, 0.4)) for name in names
    }
    return {"PhoneService": phone, "MultipleLines": lines, "InternetService": internet, **without}


def _telecom(rng: Generator, n: int) -> tuple[dict[str, Any], np.ndarray]:
    """Return the columns that the three telecom tables share, and the logit of leaving."""
    tenure = np.minimum(rng.geometric(0.03, n) - 1, 72)
    contract = rng.choice(["Month-to-month", "One year", "Two year"], n, p=[0.55, 0.21, 0.24])
    services = _services(rng, n)
    fiber = services["InternetService"] == "Fiber optic"
    monthly = 20 + 25 * (services["InternetService"] != "No") + 25 * fiber + rng.gamma(2, 6, n)
    monthly = monthly.round(2)
    logit = (
        2.5 * np.exp(-tenure / 6) - 2.2 * (contract == "Two year") - 1.2 * (contract == "One year")
    )
    logit += 2.4 * (fiber & (contract == "Month-to-month") & (services["TechSupport"] == "No"))
    logit += 1.8 * ((monthly - 70) / 30) ** 2 * (contract == "Month-to-month")
    logit -= 1.6 * ((services["OnlineSecurity"] == "Yes") & fiber)
    total = np.where(tenure == 0, " ", (tenure * monthly).round(2).astype(str))
    columns = {
        "gender": rng.choice(["Male", "Female"], n),
        "SeniorCitizen": (rng.random(n) < 0.16).astype(int),
        "Partner": _yes(rng, n),
        "Dependents": _yes(rng, n, 0.3),
        "tenure": tenure,
        **services,
        "Contract": contract,
        "PaperlessBilling": _yes(rng, n, 0.6),
        "PaymentMethod": rng.choice(
            [
                "Electronic check",
                "Mailed check",
                "Bank transfer (automatic)",
                "Credit card (automatic)",
            ],
            n,
        ),
        "MonthlyCharges": monthly,
        "TotalCharges": total,
    }
    return columns, logit


def telco(rng: Generator, n: int) -> LookAlike:
    """Blank TotalCharges of newcomers, words for yes and no, "No internet service"."""
    columns, logit = _telecom(rng, n)
    table = pd.DataFrame({"customerID": _codes(rng, n, "9999-AAAAA"), **columns})
    table["Churn"] = np.where(_leaves(rng, logit, 0.265), "Yes", "No")
    return LookAlike(table, "Churn", "Yes", "customerID")


def ibm(rng: Generator, n: int) -> LookAlike:
    """Two columns that say who left, a score and reasons recorded afterwards, constants, places."""
    columns, logit = _telecom(rng, n)
    left = _leaves(rng, logit, 0.265)
    latitude, longitude = rng.uniform(32.5, 42, n).round(6), rng.uniform(-124, -114, n).round(6)
    reasons = ["Competitor made better offer", "Attitude of support person", "Moved", "Don't know"]
    table = pd.DataFrame(
        {
            "CustomerID": _codes(rng, n, "9999-AAAAA"),
            "Count": 1,
            "Country": "United States",
            "State": "California",
            "City": rng.choice([f"City {number}" for number in range(300)], n),
            "Zip Code": rng.integers(90001, 96150, n),
            "Lat Long": [f"{a}, {b}" for a, b in zip(latitude, longitude, strict=True)],
            "Latitude": latitude,
            "Longitude": longitude,
            **{
                "Tenure Months" if name == "tenure" else name: cells
                for name, cells in columns.items()
            },
            "Churn Label": np.where(left, "Yes", "No"),
            "Churn Value": left.astype(int),
            "Churn Score": np.where(left, rng.integers(65, 101, n), rng.integers(5, 81, n)),
            "CLTV": rng.integers(2000, 6500, n),
            "Churn Reason": np.where(left, rng.choice(reasons, n), ""),
        }
    )
    leaks = ("Churn Label", "Churn Reason", "Count", "Country", "State", "Lat Long")
    return LookAlike(table, "Churn Value", 1, "CustomerID", leaks)


def maven(rng: Generator, n: int) -> LookAlike:
    """Three statuses, "None" as a value, gaps where a service is not taken, reasons afterwards."""
    columns, logit = _telecom(rng, n)
    left = _leaves(rng, logit, 0.28)
    tenure = np.maximum(columns["tenure"], 1)
    joined = (tenure <= 3) & (rng.random(n) < 0.6) & ~left
    status = np.where(joined, "Joined", np.where(left, "Churned", "Stayed"))
    internet = columns["InternetService"] != "No"
    table = pd.DataFrame(
        {
            "Customer ID": _codes(rng, n, "9999-AAAAA"),
            "Gender": columns["gender"],
            "Age": rng.integers(19, 81, n),
            "Married": columns["Partner"],
            "Number of Dependents": rng.poisson(0.4, n),
            "City": rng.choice([f"City {number}" for number in range(300)], n),
            "Tenure in Months": tenure,
            "Offer": rng.choice(
                ["None", "Offer A", "Offer B", "Offer C"], n, p=[0.55, 0.15, 0.15, 0.15]
            ),
            "Internet Type": np.where(internet, columns["InternetService"], ""),
            "Avg Monthly GB Download": [
                str(gb) if has else ""
                for gb, has in zip(rng.integers(2, 86, n), internet, strict=True)
            ],
            "Contract": columns["Contract"],
            "Premium Tech Support": np.where(internet, columns["TechSupport"], ""),
            "Online Security": np.where(internet, columns["OnlineSecurity"], ""),
            "Monthly Charge": columns["MonthlyCharges"],
            "Total Revenue": (tenure * columns["MonthlyCharges"]).round(2),
            "Customer Status": status,
            "Churn Category": np.where(
                left, rng.choice(["Competitor", "Attitude", "Price"], n), ""
            ),
            "Churn Reason": np.where(
                left, rng.choice(["Better offer", "Moved", "Rude", "Too dear"], n), ""
            ),
        }
    )
    return LookAlike(
        table, "Customer Status", "Churned", "Customer ID", ("Churn Category", "Churn Reason")
    )


def bank(rng: Generator, n: int) -> LookAlike:
    """A row counter before the id, surnames, many zero balances; age and products are curves."""
    age = np.clip(rng.normal(39, 11, n).round(), 18, 92).astype(int)
    products, active = rng.choice([1, 2, 3, 4], n, p=[0.5, 0.45, 0.04, 0.01]), rng.integers(0, 2, n)
    country = rng.choice(["France", "Germany", "Spain"], n, p=[0.5, 0.25, 0.25])
    balance = np.where(rng.random(n) < 0.36, 0, rng.normal(120_000, 30_000, n).clip(1000)).round(2)
    logit = 2.8 * np.exp(-(((age - 55) / 11) ** 2)) + np.array([0, 0.3, -2.0, 2.5, 3.5])[products]
    logit += (
        1.2 * (country == "Germany")
        - 1.4 * active * (age > 40)
        + 0.8 * (balance == 0) * (products == 1)
    )
    table = pd.DataFrame(
        {
            "RowNumber": np.arange(1, n + 1),
            "CustomerId": rng.permutation(np.arange(15_565_701, 15_565_701 + n)),
            "Surname": rng.choice([f"Name{number}" for number in range(n // 4)], n),
            "CreditScore": np.clip(rng.normal(650, 97, n).round(), 350, 850).astype(int),
            "Geography": country,
            "Gender": rng.choice(["Male", "Female"], n),
            "Age": age,
            "Tenure": rng.integers(0, 11, n),
            "Balance": balance,
            "NumOfProducts": products,
            "HasCrCard": (rng.random(n) < 0.7).astype(int),
            "IsActiveMember": active,
            "EstimatedSalary": rng.uniform(11, 200_000, n).round(2),
            "Exited": _leaves(rng, 1.3 * logit, 0.204).astype(int),
        }
    )
    return LookAlike(table, "Exited", 1, "CustomerId", ("RowNumber", "Surname"))


def card(rng: Generator, n: int) -> LookAlike:
    """Bands of income, "Unknown" as a value, and two columns of somebody's earlier model."""
    count, amount = rng.normal(65, 23, n).clip(10).round(), rng.gamma(3, 1500, n).round()
    change = rng.normal(0.71, 0.23, n).clip(0).round(3)
    inactive = rng.integers(0, 7, n)
    revolving = np.where(rng.random(n) < 0.25, 0, rng.uniform(200, 2517, n)).round()
    logit = (
        3.5 * (count < 55)
        - 2.5 * (amount > 5000) * (count < 75)
        + 4 * (change < 0.5) * (count < 70)
    )
    logit += (
        2.2 * (revolving == 0)
        + 0.5 * np.minimum(inactive, 4)
        + 2 * ((amount > 7000) & (count < 80))
    )
    left = _leaves(rng, 1.2 * logit, 0.161)
    bayes = np.where(left, rng.uniform(0.97, 0.9999, n), rng.uniform(0, 0.003, n))
    table = pd.DataFrame(
        {
            "CLIENTNUM": rng.permutation(np.arange(708_082_083, 708_082_083 + n)),
            "Attrition_Flag": np.where(left, "Attrited Customer", "Existing Customer"),
            "Customer_Age": np.clip(rng.normal(46, 8, n).round(), 26, 73).astype(int),
            "Gender": rng.choice(["M", "F"], n),
            "Dependent_count": rng.integers(0, 6, n),
            "Education_Level": rng.choice(["Graduate", "High School", "Uneducated", "Unknown"], n),
            "Marital_Status": rng.choice(["Married", "Single", "Divorced", "Unknown"], n),
            "Income_Category": rng.choice(
                [
                    "Less than $40K",
                    "$40K - $60K",
                    "$60K - $80K",
                    "$80K - $120K",
                    "$120K +",
                    "Unknown",
                ],
                n,
            ),
            "Card_Category": rng.choice(["Blue", "Silver", "Gold"], n, p=[0.92, 0.06, 0.02]),
            "Months_on_book": rng.integers(13, 57, n),
            "Months_Inactive_12_mon": inactive,
            "Credit_Limit": rng.gamma(1.2, 7000, n).clip(1438).round(1),
            "Total_Revolving_Bal": revolving.astype(int),
            "Total_Trans_Amt": amount.astype(int),
            "Total_Trans_Ct": count.astype(int),
            "Total_Ct_Chng_Q4_Q1": change,
            "Naive_Bayes_Classifier_Attrition_Flag_1": bayes.round(6),
            "Naive_Bayes_Classifier_Attrition_Flag_2": (1 - bayes).round(6),
        }
    )
    leaks = ("Naive_Bayes_Classifier_Attrition_Flag_1", "Naive_Bayes_Classifier_Attrition_Flag_2")
    return LookAlike(table, "Attrition_Flag", "Attrited Customer", "CLIENTNUM", leaks)


def bigml(rng: Generator, n: int) -> LookAlike:
    """Truth written True. and False., charges that repeat minutes, 51 states, a phone number."""
    minutes, evening = (
        rng.normal(180, 54, n).clip(0).round(1),
        rng.normal(200, 50, n).clip(0).round(1),
    )
    calls, abroad = rng.poisson(1.6, n), rng.poisson(4.4, n)
    plan, mail = rng.random(n) < 0.1, rng.random(n) < 0.28
    logit = 5.0 * ((minutes > 230) & (evening > 190) & ~mail) + 4 * ((calls > 3) & (minutes < 170))
    logit += 4.5 * (plan & (abroad < 3)) + 0.5 * plan
    states = [a + b for a in "ABCDEFG" for b in "ABCDEFGH"][:51]
    table = pd.DataFrame(
        {
            "State": rng.choice(states, n),
            "Account Length": rng.normal(101, 40, n).clip(1).round().astype(int),
            "Area Code": rng.choice([408, 415, 510], n),
            "Phone": _codes(rng, n, "999-9999"),
            "Int'l Plan": np.where(plan, "yes", "no"),
            "VMail Plan": np.where(mail, "yes", "no"),
            "Day Mins": minutes,
            "Day Charge": (0.17 * minutes).round(2),
            "Eve Mins": evening,
            "Eve Charge": (0.085 * evening).round(2),
            "Intl Calls": abroad,
            "CustServ Calls": calls,
            "Churn?": np.where(_leaves(rng, logit, 0.145), "True.", "False."),
        }
    )
    return LookAlike(table, "Churn?", "True.", "Phone")


def hr(rng: Generator, n: int) -> LookAlike:
    """Employees: constants, a number that is the id, ratings as numbers, wages that are no id."""
    age, income = rng.integers(18, 61, n), rng.gamma(2.2, 3000, n).clip(1009).round().astype(int)
    overtime, years = _yes(rng, n, 0.28), rng.integers(0, 20, n)
    travel = rng.choice(["Travel_Rarely", "Travel_Frequently", "Non-Travel"], n, p=[0.7, 0.2, 0.1])
    logit = (
        3.2 * ((overtime == "Yes") & (income < 5000))
        + 2 * np.exp(-years / 2)
        - 1.5 * (income > 9000)
    )
    logit += 1.5 * (((age - 42) / 14) ** 2) * (travel != "Non-Travel")
    table = pd.DataFrame(
        {
            "Age": age,
            "Attrition": np.where(_leaves(rng, logit, 0.161), "Yes", "No"),
            "BusinessTravel": travel,
            "Department": rng.choice(["Sales", "Research & Development", "Human Resources"], n),
            "DistanceFromHome": rng.integers(1, 30, n),
            "Education": rng.integers(1, 6, n),
            "EmployeeCount": 1,
            "EmployeeNumber": np.cumsum(rng.integers(1, 3, n)),
            "JobSatisfaction": rng.integers(1, 5, n),
            "MonthlyIncome": income,
            "Over18": "Y",
            "OverTime": overtime,
            "StandardHours": 80,
            "YearsAtCompany": years,
        }
    )
    return LookAlike(
        table, "Attrition", "Yes", "EmployeeNumber", ("EmployeeCount", "Over18", "StandardHours")
    )


def insurance(rng: Generator, n: int) -> LookAlike:
    """Semicolons and decimal commas, dates, money with a unit, thousands of premiums."""
    premium, claims = rng.gamma(4, 300, n).round(2), rng.poisson(0.5, n)
    start = pd.Timestamp("2024-12-31") - pd.to_timedelta(rng.integers(30, 4000, n), unit="D")
    years = (pd.Timestamp("2024-12-31") - start).days.to_numpy() / 365
    channel = rng.choice(["Agent", "Broker", "Online"], n)
    logit = 1.6 * ((premium - 1200) / 500) ** 2 * (channel == "Online") + 2 * np.exp(-years)
    logit += 2 * ((claims == 0) & (premium > 1500)) - 1.5 * (claims > 1)
    table = pd.DataFrame(
        {
            "policy_no": _codes(rng, n, "AA999999"),
            "start_date": start.strftime("%Y-%m-%d"),
            "channel": channel,
            "premium": premium,
            "insured_sum": [f"{1000 * value:,} EUR" for value in rng.integers(20, 900, n)],
            "claims": claims,
            "discount": [f"{value}%" for value in rng.integers(0, 41, n)],
            "lapsed": np.where(_leaves(rng, logit, 0.12), "Y", "N"),
        }
    )
    return LookAlike(table, "lapsed", "Y", "policy_no", separator=";", decimal=",")


def ecommerce(rng: Generator, n: int) -> LookAlike:
    """Gaps in numbers, one thing under two names, a very late column that is no leak."""
    tenure, complain = rng.geometric(0.09, n) - 1, (rng.random(n) < 0.28).astype(int)
    cashback, since = rng.normal(177, 49, n).clip(0).round(2), rng.poisson(4.5, n)
    distance = rng.integers(5, 37, n)
    logit = (
        3.5 * np.exp(-tenure / 2)
        + 2.2 * complain * (tenure < 12)
        + 1.5 * ((since < 2) & (complain == 1))
    )
    logit += 1.2 * ((cashback - 180) / 50) ** 2 * (distance > 18)
    gaps = {
        "Tenure": np.where(rng.random(n) < 0.05, np.nan, tenure),
        "WarehouseToHome": np.where(rng.random(n) < 0.05, np.nan, distance),
        "DaySinceLastOrder": np.where(rng.random(n) < 0.05, np.nan, since),
    }
    table = pd.DataFrame(
        {
            "CustomerID": np.arange(50_001, 50_001 + n),
            "Churn": _leaves(rng, 1.3 * logit, 0.168).astype(int),
            **gaps,
            "PreferredLoginDevice": rng.choice(["Mobile Phone", "Phone", "Computer"], n),
            "CityTier": rng.integers(1, 4, n),
            "PreferredPaymentMode": rng.choice(
                ["CC", "Credit Card", "COD", "Cash on Delivery", "UPI"], n
            ),
            "SatisfactionScore": rng.integers(1, 6, n),
            "MaritalStatus": rng.choice(["Single", "Married", "Divorced"], n),
            "Complain": complain,
            "CashbackAmount": cashback,
        }
    )
    return LookAlike(table, "Churn", 1, "CustomerID")


LOOK_ALIKES: dict[str, Callable[[Generator, int], LookAlike]] = {
    make.__name__: make for make in (telco, ibm, maven, bank, card, bigml, hr, insurance, ecommerce)
}


def look_alike(name: str, *, n: int = 3000, seed: int = 0) -> LookAlike:
    """Generate one of LOOK_ALIKES."""
    return LOOK_ALIKES[name](np.random.default_rng(seed), n)
