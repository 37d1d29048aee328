"""Where both programs decode what they did not make, found in their source; and which of it the rows come by.

A call by one of these names decodes. `int`, `float` and `bytes.decode` are not among them: they are everywhere, and are
met with the functions that hand them what they read.
"""

import ast
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType

from tests.fuzz.decoder import Decoder

ROOT = Path(__file__).resolve().parents[2]
DECODES = {
    *("FromString", "ParseFromString", "MergeFromString", "Unpack", "ParseDict", "Parse", "FromJsonString"),
    *("loads", "load_pem_x509_certificate", "load_pem_x509_certificates", "load_der_x509_csr", "load_pem_private_key"),
    *("load_der_x509_certificate", "b64decode", "urlsafe_b64decode", "decompress", "fromhex", "unpack", "unpack_from"),
    *("from_bytes", "fromisoformat", "strptime", "ip_address", "parsedate_to_datetime", "urlsplit", "convert"),
    *("from_call", "extractall"),
}
OURS = {  # what decodes nothing but what this program has just made itself, and what that is
    ("nodeagent/keys.py", "main"): "a line of the agent that started it",
    ("nodeagent/nvml/worker.py", "main"): "a line of the agent that started it",
    ("nodeagent/shipped.py", "folder"): "an archive of the package itself",
    ("nodeagent/simulate/box.py", "reimage"): "an inventory of its own",
    ("nodeagent/simulate/box.py", "image_of"): "an inventory of its own",
    ("nodeagent/simulate/box.py", "swap"): "an inventory of its own",
    ("nodeagent/simulate/crew.py", "_hear"): "a line of a process that it started",
    ("nodeagent/simulate/insider.py", "renew"): "a request of its own",
    ("nodeagent/simulate/machine.py", "_evidence"): "an inventory of its own",
    ("provisioner/credentials.py", "_write_person"): "a certificate that it has just issued",
    ("provisioner/dev.py", "_all_present"): "what its own `bedplate` printed",
    ("provisioner/dev.py", "nine"): "what its own `bedplate` printed",
    ("provisioner/service/once.py", "answer"): "an answer that it has stored",
    ("provisioner/service/once.py", "_followed"): "the same",
    ("provisioner/store/reading.py", "inventory"): "what it has packed itself",
    ("provisioner/turnstile.py", "address_of"): "an address that the kernel has given to gRPC",
}
Place = tuple[str, int, str]  # a file, the line where its function begins, and the function's name


def places() -> set[Place]:
    """Every function that decodes."""
    found = set()
    for program in ("nodeagent", "provisioner"):
        for path in sorted((ROOT / program).rglob("*.py")):
            if "machines" not in path.parts:
                found |= {(str(path.relative_to(ROOT)), *of) for of in _decoding(ast.parse(path.read_text()))}
    return found


def _decoding(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_decodes, ast.walk(function))):
            first = min([function.lineno, *(one.lineno for one in function.decorator_list)])
            yield first, function.name


def _decodes(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    match node.func:
        case ast.Attribute(attr="decode", value=ast.Attribute(value=ast.Name(id="msgspec"))):
            return True
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in DECODES
    return False


def left_out(met: set[Place]) -> list[str]:
    """The places that no row comes by, and that are not ours; and what is said to be ours and decodes nothing."""
    found = places()
    missing = [f"{path}:{line} {name}" for path, line, name in found - met if (path, name) not in OURS]
    stale = OURS.keys() - {(path, name) for path, _, name in found}
    return sorted([*missing, *(f"{path} {name} decodes nothing" for path, name in stale)])


def entered(work: Callable[[], None]) -> set[Place]:
    """The functions of both programs that were called meanwhile, in any thread that began meanwhile."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    own = {code for code in codes if code.co_filename.startswith((f"{ROOT}/nodeagent/", f"{ROOT}/provisioner/"))}
    return {(code.co_filename.removeprefix(f"{ROOT}/"), code.co_firstlineno, code.co_name) for code in own}


def good_day(decoders: dict[str, Decoder]) -> None:
    for decoder in decoders.values():
        with decoder.opened() as read:
            for body in decoder.corpus:
                read(body)
