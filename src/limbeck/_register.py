"""Make transformers' Auto classes know limbeck models, without importing transformers for it.

``import limbeck`` must stay light, and must work before or after ``import transformers``. So a finder watches for the
modules that matter and registers our classes once they have been imported. Registering needs the modeling code, hence
torch and ``transformers.modeling_utils``; while one of the watched modules is half imported, the next one to finish
does it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import importlib.abc  # its base classes would load importlib.resources and others at every start

CONFIGURATION = "transformers.models.auto.configuration_auto"
MODELS = "transformers.models.auto.modeling_auto"
MODELING = "transformers.modeling_utils"
ENCODER = "limbeck.model.encoder"
WATCHED = (CONFIGURATION, MODELS, MODELING, ENCODER)


class Following:
    """A loader that hands over to another, gives it its place back, and calls back.

    A wrapper, since the other may serve many modules (pytest's does): it must not be changed itself.
    """

    def __init__(self, loader: importlib.abc.Loader, finished: Callable[[], None]) -> None:
        self.loader, self.finished = loader, finished

    def __getattr__(self, name: str) -> Any:  # of the other loader, whatever it has
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Return the module object that the other loader makes."""
        module: ModuleType | None = self.loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then call back."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.finished()


class Watcher:
    """Calls back after a watched module has been imported; finds no module itself."""

    def __init__(self, names: Sequence[str], finished: Callable[[], None]) -> None:
        self.names, self.finished = frozenset(names), finished
        self.done = {name for name in names if name in sys.modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the other finders, with a loader that calls back after loading.

        Args:
            fullname: Name of the module.
            path: Search path of its package.
            target: The module, if it is reloaded.
        """
        if fullname not in self.names:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            following = Following(spec.loader, lambda: self._imported(fullname))
            spec.loader = cast("importlib.abc.Loader", following)
        return spec

    def _imported(self, name: str) -> None:
        self.done.add(name)
        self.finished()

    def idle(self) -> bool:
        """Whether no watched module is half imported."""
        return all(name in self.done for name in self.names if name in sys.modules)


def install() -> None:
    """Register now if transformers' Auto classes are imported already, else as soon as they are."""
    if any(type(finder).__name__ == Watcher.__name__ for finder in sys.meta_path):
        return
    watcher = Watcher(WATCHED, lambda: register() if watcher.idle() else None)
    sys.meta_path.insert(0, watcher)
    register()


def register() -> None:
    """Enter our classes in those of transformers' Auto classes that are imported; again is harmless."""
    configurations, models = sys.modules.get(CONFIGURATION), sys.modules.get(MODELS)
    if configurations is None:
        return
    encoder = importlib.import_module(ENCODER)
    configurations.AutoConfig.register("limbeck", encoder.LimbeckConfig, exist_ok=True)
    kinds = {
        "AutoModel": encoder.LimbeckModel,
        "AutoModelForSequenceClassification": encoder.LimbeckForSequenceClassification,
        "AutoModelForTokenClassification": encoder.LimbeckForTokenClassification,
    }
    encoder.LimbeckConfig.register_for_auto_class("AutoConfig")  # save_pretrained then carries the code along
    for name, kind in kinds.items():
        kind.register_for_auto_class(name)
        if models is not None:
            getattr(models, name).register(encoder.LimbeckConfig, kind, exist_ok=True)
