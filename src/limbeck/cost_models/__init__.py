"""What a shape costs before it is built: tables and predictors of latency, and the data they learn from."""
