"""Plain text for pretraining: documents, packing into sequences, masks."""
