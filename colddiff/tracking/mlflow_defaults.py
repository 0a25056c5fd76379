"""Variables that MLflow reads when it is imported, where the user has not set them."""

from __future__ import annotations

# Only our background thread retries: a retry inside a POST could create a run twice.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # It would print the address of each run that ends, where scripts expect an id or JSON.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
