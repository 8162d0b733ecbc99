"""From a spec to a method: one `match` over the tagged specs, and the door for yours."""

from __future__ import annotations

import sys
import traceback
from types import ModuleType
from typing import Any, assert_never

from raycl.config.autoseed import AutoSeed
from raycl.config.clts import CLTS
from raycl.config.dmc import DMC, DMCOT
from raycl.config.lada import LADA
from raycl.config.loading import check
from raycl.config.methods import (
    CGIL,
    NCM,
    SLDA,
    Finetune,
    Joint,
    MethodSpec,
    ProtoFusion,
    RealReplay,
    UserMethod,
    ZeroShot,
)
from raycl.config.rivals import (
    RAIL,
    RAPF,
    SLCA,
    FeCAM,
    LinearProbe,
    RanPAC,
    TipAdapter,
    WiSEFT,
)
from raycl.config.spec import Spec
from raycl.errors import ConfigError, MethodError
from raycl.methods.autoseed import AutoSeedMethod
from raycl.methods.cgil import CGILMethod
from raycl.methods.clts import CLTSMethod
from raycl.methods.dmc import DMCMethod
from raycl.methods.fecam import FeCAMMethod
from raycl.methods.finetune import FinetuneMethod
from raycl.methods.joint import JointMethod
from raycl.methods.lada import LADAMethod
from raycl.methods.linear_probe import LinearProbeMethod
from raycl.methods.method import Method, Setting
from raycl.methods.ncm import NCMMethod
from raycl.methods.proto_fusion import ProtoFusionMethod
from raycl.methods.rail import RAILMethod
from raycl.methods.ranpac import RanPACMethod
from raycl.methods.rapf import RAPFMethod
from raycl.methods.real_replay import RealReplayMethod
from raycl.methods.slca import SLCAMethod
from raycl.methods.slda import SLDAMethod
from raycl.methods.source_code import SourceCode, read_source_code
from raycl.methods.tip_adapter import TipAdapterMethod
from raycl.methods.wise_ft import WiSEFTMethod
from raycl.methods.zero_shot import ZeroShotMethod

USER_MODULE = "raycl_user_"
"""How the modules made from users' files begin."""


def build_method(spec: MethodSpec, setting: Setting, code: SourceCode | None = None) -> Method[Any]:
    """The method that a spec describes, before its first task."""
    match spec:
        case ZeroShot():
            return ZeroShotMethod(spec, setting)
        case NCM():
            return NCMMethod(spec, setting)
        case SLDA():
            return SLDAMethod(spec, setting)
        case ProtoFusion():
            return ProtoFusionMethod(spec, setting)
        case Finetune():
            return FinetuneMethod(spec, setting)
        case Joint():
            return JointMethod(spec, setting)
        case RealReplay():
            return RealReplayMethod(spec, setting)
        case CGIL():
            return CGILMethod(spec, setting)
        case CLTS():
            return CLTSMethod(spec, setting)
        case AutoSeed():
            return AutoSeedMethod(spec, setting)
        case DMC() | DMCOT():
            return DMCMethod(spec, setting)
        case LADA():
            return LADAMethod(spec, setting)
        case RAIL():
            return RAILMethod(spec, setting)
        case RanPAC():
            return RanPACMethod(spec, setting)
        case TipAdapter():
            return TipAdapterMethod(spec, setting)
        case LinearProbe():
            return LinearProbeMethod(spec, setting)
        case FeCAM():
            return FeCAMMethod(spec, setting)
        case SLCA():
            return SLCAMethod(spec, setting)
        case WiSEFT():
            return WiSEFTMethod(spec, setting)
        case RAPF():
            return RAPFMethod(spec, setting)
        case UserMethod():
            return _user_method(spec, setting, code or read_source_code(spec.target))
        case _:
            assert_never(spec)


def _user_method(spec: UserMethod, setting: Setting, code: SourceCode) -> Method[Any]:
    cls = load_class(code)
    options_type = getattr(cls, "Options", Spec)
    options = check(options_type, spec.options)
    try:
        return cls(options, setting)
    except TypeError as error:
        raise MethodError(
            f"{cls.__name__} cannot be built: {error}", do="define __init__(self, spec, setting)"
        ) from error


def load_class(code: SourceCode) -> type[Method[Any]]:
    """The method class of a user's source text."""
    module = _execute(code)
    if code.class_name:
        found = [getattr(module, code.class_name, None)]
    else:
        found = [v for v in vars(module).values() if _is_own_method(v, module)]
    classes = [c for c in found if isinstance(c, type) and issubclass(c, Method)]
    if len(classes) != 1:
        names = ", ".join(c.__name__ for c in classes) or "none"
        raise ConfigError(
            f"{code.name} must hold one class that derives from raycl.Method",
            got=code.class_name or names,
            do="name it: path/to/file.py:Class",
        )
    if classes[0].__abstractmethods__:
        missing = ", ".join(sorted(classes[0].__abstractmethods__))
        raise ConfigError(f"{classes[0].__name__} does not define {missing}")
    return classes[0]


def _is_own_method(value: object, module: ModuleType) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    )


def is_users(cls: type) -> bool:
    """Whether a class came from a user's file."""
    return cls.__module__.startswith(USER_MODULE)


def place_in_users_file(error: BaseException, cls: type) -> str:
    """`mine.py, line 12`: the last place of a traceback that lies in the user's file."""
    code: SourceCode = vars(sys.modules[cls.__module__])["__source_code__"]
    return f"{code.file}, line {_line_of(error, code)}"


def _execute(code: SourceCode) -> ModuleType:
    # A name of its own per text, so that two versions in one process do not mix.
    module = ModuleType(f"{USER_MODULE}{code.digest}")
    vars(module)["__source_code__"] = code
    sys.modules[module.__name__] = module
    try:
        exec(compile(code.text, code.file, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise MethodError(
            f"{code.file} cannot be imported: {type(error).__name__}: {error}",
            do=f"see line {_line_of(error, code)}",
        ) from error
    return module


def _line_of(error: BaseException, code: SourceCode) -> int | None:
    if isinstance(error, SyntaxError):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno for f in reversed(frames) if f.filename == code.file), None)
