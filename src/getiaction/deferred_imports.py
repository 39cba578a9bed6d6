"""Deferred imports of LeRobot and Lightning: a program loads only the modules that it uses.

LeRobot's packages import everything that they export, so that importing ACT also imports diffusers,
Hugging Face datasets and twenty other policies; and several modules import ``torch._dynamo``,
PyTorch's compiler, without compiling anything. After :func:`install`

- a package of LeRobot or torchmetrics (which Lightning imports) loads the module of a name on first
  access; the package's own ``__init__`` says which module that is;
- a few functions and one class wait for their first use, :data:`LATER`;
- functions that hide code from the compiler, or break its graph, do so only once the compiler has
  been imported.

All other code runs unchanged, and names that another version defines elsewhere are imported as
usual. Classes that register themselves on import, as policies and processor steps do, are
registered only on first access: :mod:`getiaction.policies.lerobot.registry` handles that.
"""

import ast
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from inspect import isfunction
from types import CodeType, ModuleType
from typing import Any

PACKAGES = ("lerobot", "torchmetrics")
COMPILER = "torch._dynamo"
# By module: the names whose import is deferred, and their home modules.
LATER: Mapping[str, Mapping[str, str]] = {
    "lerobot.optim.schedulers": {"get_scheduler": "diffusers.optimization"},
    "lightning.fabric.wrappers": {"OptimizedModule": COMPILER},
    "lightning.pytorch.utilities.compile": {"OptimizedModule": COMPILER},
    "torchvision.ops.roi_align": {"is_compile_supported": f"{COMPILER}.utils"},
}
# By module: its decorator that hides a function from the compiler, which imports the compiler.
HIDES = {"torch._compile": "_disable_dynamo", "torch.compiler": "disable"}
OPTIMIZER = "torch.optim.optimizer"
# Global variable of a package: module and name behind each name that it offers.
HOMES = "__homes__"
# torchmetrics imports it, which takes seconds, to restore a former name in it.
PATCHED = "scipy.signal"


def install() -> None:
    """Defer imports in this process from now on, except of modules imported already.

    For programs, not for libraries: LeRobot's registries are filled later.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Meta path finder that replaces the loaders of some modules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        within = name.partition(".")[0] in PACKAGES and name != PACKAGES[0]
        if not within and name not in (*LATER, *HIDES, OPTIMIZER):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        where = name, spec.loader.path
        if name in LATER:
            spec.loader = _ImportingLater(*where)
        elif name in HIDES:
            spec.loader = _Hiding(*where)
        elif name == OPTIMIZER:
            spec.loader = _Optimizers(*where)
        elif spec.submodule_search_locations is not None:
            spec.loader = _Offering(*where)
        return spec


class _Changed(SourceFileLoader):
    """Loader that modifies a module's source before executing it, without a bytecode cache."""

    def get_code(self, fullname: str) -> CodeType | None:
        tree = ast.parse(self.get_data(self.path), self.path)
        changed = ast.fix_missing_locations(self.change(tree, fullname))
        code: CodeType = compile(changed, self.path, "exec", dont_inherit=True)
        return code

    def change(self, tree: ast.Module, fullname: str) -> Any:
        raise NotImplementedError


class _Offering(_Changed):
    """Loader of a package whose exported names are imported on first access."""

    def exec_module(self, module: ModuleType) -> None:
        self._homes: dict[str, tuple[str, str]] = {}
        homes = self._homes

        def __getattr__(name: str) -> Any:
            if name not in homes:
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            home, original = homes[name]
            value = getattr(importlib.import_module(home), original)
            setattr(module, name, value)
            return value

        module.__getattr__ = __getattr__  # type: ignore[method-assign]
        setattr(module, HOMES, homes)
        super().exec_module(module)

    def change(self, tree: ast.Module, fullname: str) -> Any:
        kept = [each for each in tree.body if not _only_patches(each)]
        offers = {each: home for each in kept if (home := _offered_from(each, fullname))}
        used = {
            node.id
            for each in kept
            if each not in offers
            for node in ast.walk(each)
            if isinstance(node, ast.Name)
        }
        for statement, home in offers.items():
            names = {alias.asname or alias.name: alias.name for alias in _aliases(statement)}
            # A module of the same name would replace the name once it is imported.
            if used.isdisjoint(names) and home.rpartition(".")[2] not in names:
                self._homes |= {name: (home, original) for name, original in names.items()}
                kept.remove(statement)
        for statement in kept:
            if isinstance(statement, ast.If) and not statement.orelse:
                statement.body = [_offer(each, fullname, used) for each in statement.body]
        tree.body = kept
        return tree


def _offer(statement: ast.stmt, package: str, used: set[str]) -> ast.stmt:
    """Return what defers an import that depends on a condition, once that is known to hold.

    Any other statement, and an import of a name in ``used``, is returned unchanged.
    """
    home = _offered_from(statement, package)
    if home is None:
        return statement
    names = {each.asname or each.name: (home, each.name) for each in _aliases(statement)}
    if not used.isdisjoint(names) or home.rpartition(".")[2] in names:
        return statement
    return ast.parse(f"{HOMES}.update({names!r})").body[0]


def _aliases(statement: ast.stmt) -> list[ast.alias]:
    assert isinstance(statement, ast.ImportFrom)
    return statement.names


def _offered_from(statement: ast.stmt, package: str) -> str | None:
    """Return the module of a from-import, if it belongs to the same distribution."""
    if not isinstance(statement, ast.ImportFrom) or not statement.module:
        return None
    if any(alias.name == "*" for alias in statement.names):
        return None
    if statement.level == 1:
        return f"{package}.{statement.module}"
    top = package.partition(".")[0]
    return statement.module if statement.module.startswith(f"{top}.") else None


def _only_patches(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and any(
        isinstance(inner, ast.Import) and inner.names[0].name == PATCHED for inner in statement.body
    )


class _ImportingLater(_Changed):
    """Loader of a module whose imports in `LATER` are replaced by stand-ins."""

    def exec_module(self, module: ModuleType) -> None:
        for name, home in LATER[module.__name__].items():
            setattr(module, name, _stand_in(home, name))
        super().exec_module(module)

    def change(self, tree: ast.Module, fullname: str) -> Any:
        return _WithoutImports(LATER[fullname]).visit(tree)


class _WithoutImports(ast.NodeTransformer):
    """Removes a module's top-level imports of the given names."""

    def __init__(self, homes: Mapping[str, str]) -> None:
        self._homes = homes

    def visit_ImportFrom(self, statement: ast.ImportFrom) -> ast.stmt:
        """Remove the import, if it is deferred."""
        homes = [self._homes.get(alias.name) for alias in statement.names]
        return ast.Pass() if homes == [statement.module] else statement

    def visit_FunctionDef(self, statement: ast.FunctionDef) -> ast.stmt:
        """Keep imports inside functions."""
        return statement


def _stand_in(home: str, name: str) -> Any:
    if name[0].isupper():
        return _LaterClass(name, (), {"_home": home})

    def function(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(home), name)(*args, **kwargs)

    return function


class _LaterClass(type):
    """Stand-in for a class that has no instances before its module has been imported."""

    def __instancecheck__(cls, instance: Any) -> bool:
        home = sys.modules.get(vars(cls)["_home"])
        return home is not None and isinstance(instance, getattr(home, cls.__name__))


class _Hiding(SourceFileLoader):
    """Loader of a module with a decorator that hides functions from the compiler, see `HIDES`."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        name = HIDES[module.__name__]
        setattr(module, name, partial(_hidden, getattr(module, name)))


def _hidden(hide: Callable[..., Any], fn: Any = None, *args: Any, **kwargs: Any) -> Any:
    if fn is None:
        return lambda fn: _hidden(hide, fn, *args, **kwargs)
    if not isfunction(fn):
        return hide(fn, *args, **kwargs)
    through_compiler = None

    @wraps(fn)
    def inner(*given: Any, **named: Any) -> Any:
        nonlocal through_compiler
        # Nothing is being compiled if the compiler has not been imported.
        if COMPILER not in sys.modules:
            return fn(*given, **named)
        if through_compiler is None:
            through_compiler = hide(fn, *args, **kwargs)
        return through_compiler(*given, **named)

    return inner


class _Optimizers(_Changed):
    """Loader of PyTorch's optimizers, which import the compiler to break its graphs."""

    def change(self, tree: ast.Module, fullname: str) -> Any:
        return _WithoutCompiler().visit(tree)


class _WithoutCompiler(ast.NodeTransformer):
    """Removes imports of the compiler; calls of it run only if it is imported elsewhere."""

    def visit_Import(self, statement: ast.Import) -> ast.stmt:
        """Remove the import, if it is deferred."""
        is_compiler = [alias.name for alias in statement.names] == [COMPILER]
        return ast.Pass() if is_compiler else statement

    def visit_Expr(self, statement: ast.Expr) -> ast.stmt:
        """Call the compiler only if it has been imported."""
        if not ast.unparse(statement).startswith(f"{COMPILER}."):
            return statement
        condition = ast.parse(f"{COMPILER!r} in __import__('sys').modules", mode="eval").body
        return ast.If(test=condition, body=[statement], orelse=[])
