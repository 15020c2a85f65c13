"""limbeck: small, fast encoders."""
