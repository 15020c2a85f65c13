"""Every technique, probe and choice: importing this package registers them all. Nothing here imports torch."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _probe in ("decision", "latency", "memory", "portability", "quality", "throughput"):
    importlib.import_module(f"limbeck.measure.{_probe}")
