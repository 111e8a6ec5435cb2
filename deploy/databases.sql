-- MLflow and Optuna have tables of the same name: each has a database of its own.
CREATE DATABASE mlflow;
CREATE DATABASE studies;
