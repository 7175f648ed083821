"""Run-time checks of annotations that cost little: what jaxtyping does for every function only where there are shapes.

``jaxtyping.jaxtyped`` compiles two checkers for each function, binds every call's arguments and keeps the sizes of its
axes; functions that are defined within others pay for that at each call of the outer one. Most annotations here name
plain classes, and beartype alone checks those the same.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping

_everywhere = jaxtyping.jaxtyped


def _has_shape(hint: Any) -> bool:
    """Whether an annotation, or a part of it, is one of jaxtyping's."""
    if isinstance(hint, (list, tuple)):
        return any(map(_has_shape, hint))
    if getattr(hint, "__module__", "").startswith("jaxtyping"):
        return True
    if isinstance(hint, type) and any(base.__module__.startswith("jaxtyping") for base in hint.__mro__):
        return True
    return any(map(_has_shape, typing.get_args(hint)))


def _unless_disabled(fn: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """As all others, these checks are off where a test sets ``jaxtyping_disable``, to call as users do."""

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        return (fn if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    return called


def _checked(fn: Any, typechecker: Callable[[Any], Any]) -> Any:
    if inspect.isfunction(fn):
        if not fn.__annotations__:
            return fn
        try:
            hints = typing.get_type_hints(fn, include_extras=True)
        except (NameError, TypeError, AttributeError):  # names that only type checkers import
            return _everywhere(fn, typechecker=typechecker)
        if not any(map(_has_shape, hints.values())):
            fn.__annotations__ = hints  # beartype looks names up in a class first, where a method may have the same
            return _unless_disabled(fn, typechecker(fn))
    return _everywhere(fn, typechecker=typechecker)


def shapes(fn: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """In place of ``jaxtyping.jaxtyped``, as its import hook calls it."""
    return (lambda fn: _checked(fn, typechecker)) if fn is None else _checked(fn, typechecker)


def install(package: str) -> None:
    """Check every annotation of a package's functions and dataclasses, from its import on."""
    jaxtyping.jaxtyped = shapes  # pyright: ignore[reportAttributeAccessIssue]
    jaxtyping.install_import_hook(package, "beartype.beartype")
