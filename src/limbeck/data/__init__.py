"""Tasks: texts, labels and a metric, checked before anything is trained on them."""
