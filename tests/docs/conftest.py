"""A space of shapes with pretended latencies, for the scripts of benchmarks."""

from measuring import pretended, setting, space  # noqa: F401
