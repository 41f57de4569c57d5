"""Reach models: what each kind of stream watcher could have done with a session.

One file is one program. Its class says in a few lines what the program reads, what settles a session for it,
and where that is known from (docs/greylisters.md). A new one is a new file here with one subclass of
`ReachModel`: records, metrics, the table and the checks of the documents find it by themselves.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Final

from monitor.greylisters.placement import TlsEnds
from monitor.greylisters.watcher import StreamWatcher


def _models() -> tuple[type[StreamWatcher], ...]:
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    return tuple(sorted(StreamWatcher.__subclasses__(), key=lambda model: model.name))


MODELS: Final = _models()
"""By name."""


def models(tls_ends: TlsEnds) -> tuple[StreamWatcher, ...]:
    """All models, for a site where TLS ends there."""
    return tuple(model(tls_ends) for model in MODELS)


__all__ = ["MODELS", "StreamWatcher", "TlsEnds", "models"]
