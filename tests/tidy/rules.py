"""The house rules as data, and the pure functions that hold a tree against them.

A tree is a dict from path ("common/base/status.h") to text. Each rule returns a list of "path:line: what, why" strings.
"""

import os.path
import re
from dataclasses import dataclass

CODE = (".h", ".cc", ".cu", ".cuh")
HEADERS = (".h", ".cuh")
SIZED = CODE + (".py", ".proto")

SOFT_LINES = 400  # warned about
HARD_LINES = 600  # a file this long is two rooms

# Lower floors know nothing of higher ones; rooms of one floor know nothing of each other.
FLOORS = (
    ("common/base",),
    ("common/runtime", "common/proto", "common/metrics", "common/http"),
    ("common/model",),
    ("common/kv",),
    ("common/engine",),
    ("common/rpc",),
    ("common/process",),
    ("kv_transfer", "kernels"),
    ("prefill_worker", "decode_worker", "router"),
)
# Above all floors, and free to include each other and anything below.
ROOF = ("deploy", "tools", "tests")
MAIN = "main.cc"

# Libraries whose headers are included in quotes, as Google's style has it.
THIRD_PARTY = ("absl/", "benchmark/", "boost/", "gmock/", "google/protobuf/", "grpcpp/", "gtest/", "oneapi/", "prometheus/", "spdlog/")

# Inside the router: siblings, and the rooms that may bring them together.
ROUTER_SIBLINGS = ("router/text", "router/api", "router/metrics", "router/policy")
ROUTER_CORE = "router/core"

# Only mains (and the roof) name a maker of a door, so that a worker's library links neither CUDA, UCX nor NCCL.
MAKERS = ("kernels/", "kv_transfer/ucx", "kv_transfer/nccl")

# common/ is for what at least two of these share.
TENANTS = ("prefill_worker", "decode_worker", "router", "kv_transfer", "kernels", "deploy", "tools")
# Headers that stay in common/ with one tenant, and why.
ONE_TENANT = {
    "common/base/utf8.h": "router/text and router/api are siblings: what both need lies below them",
    "common/engine/crossing_call.h": "a maker of the doors WorkerClient and PrefillClient lies beside them",
    "common/engine/direct_prefill_client.h": "a maker of the door PrefillClient lies beside it",
    "common/engine/direct_worker_client.h": "a maker of the door WorkerClient lies beside it",
    "common/engine/kv_stub_executor.h": "a maker of the door Executor lies beside it",
    "common/engine/model_executor.h": "a maker of the door Executor lies beside it",
    "common/runtime/rank_barrier.h": "threads have one home",
    "common/runtime/thread_pool.h": "threads have one home",
    "common/runtime/virtual_loop.h": "a maker of the door Loop lies beside it",
}


@dataclass(frozen=True)
class Ban:
    """A word of code that has one home; comments and strings are not looked at."""

    name: str
    pattern: str
    homes: tuple  # path prefixes, or "main.cc" for every main
    why: str


BANS = (
    Ban("getenv", r"\b(?:secure_)?getenv\b", (MAIN,), "the environment is read by mains, everybody else is handed options"),
    Ban("std::thread", r"\bstd::j?thread\b|\bpthread_create\b|\bstd::async\b",
        ("common/runtime/", "kv_transfer/", "common/http/", "tests/", MAIN),
        "threads belong to the runtime, and to the owners of a transfer or an edge"),
    Ban("mutex", r"\bstd::(?:recursive_|shared_|timed_)*mutex\b|\babsl::Mutex\b|\bstd::condition_variable\b",
        ("common/runtime/", "common/http/", "common/rpc/", "decode_worker/grpc_", "router/core/grpc_", "kv_transfer/",
         "kernels/cuda/nccl_", "tests/", MAIN),
        "state lives on one Loop, and needs no lock; only the edges, where foreign threads call in, have one"),
    Ban("wall clock", r"\bsystem_clock\b|\bgettimeofday\b|\babsl::Now\b|\bCLOCK_REALTIME\b|\bstd::time\b|(?<![\w.>:])time\(",
        ("common/base/log.cc", "common/rpc/", MAIN), "time is handed in, so that the simulator can hand in its own; gRPC's deadlines know no other clock"),
    Ban("monotonic clock", r"\bsteady_clock\b|\bhigh_resolution_clock\b|\bCLOCK_MONOTONIC\b",
        ("common/runtime/", "common/http/", "kv_transfer/ucx/", "tests/", "tools/", MAIN), "monotonic time comes from Loop::NowUs"),
    Ban("#if", r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b", ("common/base/mutant.h",), "CMake chooses the platform's file; the code never asks"),
    Ban("throw", r"\bthrow\b", (), "errors of the world are a Status, errors of ours are a LH_CHECK"),
)

# Looked for in every text file of the repository, comments included. Split, so that this file does not name them.
MARKS = (
    (re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b"), "an unfinished mark: do it, or file it as an issue"),
    (re.compile(r"/wo" r"rk/|/ro" r"ot/|/ho" r"me/\w"), "a path that exists on one machine only"),
)
VAGUE_NAMES = re.compile(r"(?:^|_)(?:utils?|helpers?|misc|common)(?:_test)?\.\w+$")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"]+)"', re.MULTILINE)
COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<tag>[^()\s\\]{0,16})\(.*?\)(?P=tag)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.DOTALL
)


def code_only(text):
    """The text with comments and strings blanked; lines keep their numbers. Digit separators survive by luck of the rules."""
    text = re.sub(r"(?<=\d)'(?=\d)", "", text)
    return COMMENT_OR_STRING.sub(lambda match: "\n" * match[0].count("\n"), text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def includes(text):
    """(line, path) of every quoted include of ours."""
    found = [(line_of(text, match.start()), match[1]) for match in INCLUDE.finditer(text)]
    return [(line, target) for line, target in found if not target.startswith(THIRD_PARTY)]


def is_main(path):
    return path.rsplit("/", 1)[-1] == MAIN


def floor_of(path):
    """(floor, room); the roof and the mains are above all. None for a path that no floor knows."""
    if path.startswith(tuple(f"{room}/" for room in ROOF)) or is_main(path):
        return len(FLOORS), path.split("/", 1)[0]
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            if path.startswith(f"{room}/"):
                return floor, room
    return None


def check_floors(tree):
    faults = []
    for path, text in tree.items():
        if not path.endswith(CODE):
            continue
        here = floor_of(path)
        if here is None:
            faults.append(f"{path}:1: no floor knows this room; add it to FLOORS, or move the file")
            continue
        for line, target in includes(text):
            there = floor_of(target)
            if there is None:
                faults.append(f'{path}:{line}: "{target}" is not a path from the repository\'s root')
            elif there[0] > here[0]:
                faults.append(f"{path}:{line}: includes {target}, which stands on a higher floor")
            elif there[0] == here[0] and there[1] != here[1] and here[0] != len(FLOORS):
                faults.append(f"{path}:{line}: includes {target} of a sibling room")
            elif is_main(target):
                faults.append(f"{path}:{line}: nobody includes a main")
            elif here[0] < len(FLOORS) and target.startswith(MAKERS) and here[1] != there[1]:
                faults.append(f"{path}:{line}: includes {target}; only mains name the maker of a door")
    return faults


def check_router(tree):
    faults = []
    for path, text in tree.items():
        room = next((room for room in ROUTER_SIBLINGS if path.startswith(f"{room}/")), None)
        if room is None or not path.endswith(CODE):
            continue
        for line, target in includes(text):
            if target.startswith(f"{ROUTER_CORE}/"):
                faults.append(f"{path}:{line}: includes {target}; the core stands above {room}")
            elif target.startswith(tuple(f"{other}/" for other in ROUTER_SIBLINGS if other != room)):
                faults.append(f"{path}:{line}: includes {target} of a sibling room; only {ROUTER_CORE} brings them together")
    return faults


def _unit(path):
    """A header and its source stand and fall together: both are the path without its suffix."""
    return re.sub(r"\.(?:pb\.h|grpc\.pb\.h|proto|h|cc|cuh|cu)$", "", path)


def check_tenants(tree):
    edges = {}
    for path, text in tree.items():
        if path.startswith("common/") and path.endswith(CODE):
            targets = [_unit(target) for _, target in includes(text) if target.startswith("common/")]
            headless = not path.endswith(HEADERS) and f"{_unit(path)}.h" not in tree
            # A source without a header of its name belongs to the header beside it whose name is nearest.
            beside = [target for target in targets if target.rpartition("/")[0] == path.rpartition("/")[0]]
            nearest = max(beside, key=lambda name: (path.startswith(name), len(os.path.commonprefix((name, path)))), default="")
            owner = nearest if headless and nearest else _unit(path)
            edges.setdefault(owner, set()).update(targets)
    tenants = {}

    def reach(unit, tenant):
        if tenant not in tenants.setdefault(unit, set()):
            tenants[unit].add(tenant)
            for further in edges.get(unit, ()):
                reach(further, tenant)

    for path, text in tree.items():
        tenant = path.split("/", 1)[0]
        if tenant in TENANTS and path.endswith(CODE):
            for _, target in includes(text):
                if target.startswith("common/"):
                    reach(_unit(target), tenant)
    faults = []
    for path in tree:
        if path.startswith("common/") and path.endswith(HEADERS):
            found = sorted(tenants.get(_unit(path), ()))
            if len(found) < 2 and not (found and path in ONE_TENANT):
                who = f"only {found[0]} reaches it: move it there" if found else "nobody reaches it: remove it"
                faults.append(f"{path}:1: common/ is for what two top folders share; {who}")
    return faults


def check_bans(tree):
    faults = []
    for path, text in tree.items():
        if not path.endswith(CODE):
            continue
        code = code_only(text)
        for ban in BANS:
            at_home = any(is_main(path) if home == MAIN else path.startswith(home) for home in ban.homes)
            if not at_home:
                for match in re.finditer(ban.pattern, code, re.MULTILINE):
                    faults.append(f"{path}:{line_of(code, match.start())}: {ban.name}: {ban.why}")
    return faults


def check_marks(tree):
    faults = []
    for path, text in tree.items():
        for pattern, why in MARKS:
            for match in pattern.finditer(text):
                faults.append(f"{path}:{line_of(text, match.start())}: {match[0]}: {why}")
    return faults


def check_sizes(tree, limit=HARD_LINES):
    faults = []
    for path, text in tree.items():
        lines = text.count("\n")
        if path.endswith(SIZED) and lines > limit:
            faults.append(f"{path}:{lines}: {lines} lines, the limit is {limit}: is this one room?")
    return faults


def check_headers(tree):
    faults = []
    for path, text in tree.items():
        if path.endswith(HEADERS) and not re.search(r"^#pragma once$", text, re.MULTILINE):
            faults.append(f"{path}:1: a header without #pragma once")
        if path.endswith(HEADERS) and not text.startswith("//"):
            faults.append(f"{path}:1: a header without a contract: what it is for, who calls it, what it owns")
    return faults


def check_names(tree):
    return [f"{path}:1: a name that says nothing; name the noun" for path in tree
            if path.endswith(SIZED) and VAGUE_NAMES.search(path.rsplit("/", 1)[-1])]


def check_cmake(tree):
    """Every source is named in the CMakeLists.txt of its folder, or of the nearest folder above that has one."""
    faults = []
    for path in tree:
        if not path.endswith((".cc", ".cu")):
            continue
        folder, name = path.rsplit("/", 1)
        relative = name
        while folder and f"{folder}/CMakeLists.txt" not in tree:
            folder, _, last = folder.rpartition("/")
            relative = f"{last}/{relative}"
        listing = re.sub(r"#.*", "", tree.get(f"{folder}/CMakeLists.txt", ""))
        if not re.search(rf"(?<![\w/.-]){re.escape(relative)}(?![\w.-])", listing):
            faults.append(f"{path}:1: {folder}/CMakeLists.txt does not name it, so nothing builds it")
    return faults


CHECKS = {
    "floors": check_floors,
    "router rooms": check_router,
    "two tenants": check_tenants,
    "banned words": check_bans,
    "marks": check_marks,
    "sizes": check_sizes,
    "headers": check_headers,
    "names": check_names,
    "cmake lists every source": check_cmake,
}
