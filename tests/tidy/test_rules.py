"""Every rule can fail: each is shown a bad snippet that it must catch and a good one that it must not."""

import pytest

import rules

CMAKE_OK = {"common/base/CMakeLists.txt": "longhaul_library(longhaul_base SOURCES status.cc # note\n deep/inner.cc)"}
GOOD_HEADER = "// What for.\n#pragma once\n"


def including(*targets):
    return "".join(f'#include "{target}"\n' for target in targets)


BAD = [
    ("floors", {"common/base/a.h": including("common/runtime/loop.h")}),
    ("floors", {"common/model/a.h": including("common/engine/executor.h")}),
    ("floors", {"common/model/a.h": including("common/kv/block_manager.h")}),
    ("floors", {"common/runtime/a.h": including("common/http/edge.h")}),
    ("floors", {"kv_transfer/a.cc": including("kernels/cpu/backend.h")}),
    ("floors", {"router/core/a.cc": including("decode_worker/worker.h")}),
    ("floors", {"prefill_worker/a.h": including("kernels/cpu/cpu_backend.h")}),
    ("floors", {"prefill_worker/a.h": including("kv_transfer/ucx_transport.h")}),
    ("floors", {"common/base/a.h": including("status.h")}),
    ("floors", {"common/attic/a.h": ""}),
    ("floors", {"tests/a_test.cc": including("router/main.cc")}),
    ("router rooms", {"router/api/a.cc": including("router/text/tokenizer.h")}),
    ("router rooms", {"router/policy/a.h": including("router/core/dispatcher.h")}),
    ("two tenants", {"common/kv/a.h": "", "router/core/b.cc": including("common/kv/a.h")}),
    ("two tenants", {"common/kv/a.h": "", "tests/b_test.cc": including("common/kv/a.h"), "router/c.cc": including("common/kv/a.h")}),
    ("two tenants", {"common/kv/a.h": ""}),
    ("banned words", {"router/core/a.cc": 'auto* p = std::getenv("HOME");'}),
    ("banned words", {"router/core/a.cc": "std::thread worker(run);"}),
    ("banned words", {"common/kv/a.h": "mutable std::shared_mutex mutex_;"}),
    ("banned words", {"common/kv/a.h": "absl::Mutex mutex_;"}),
    ("banned words", {"common/kv/a.cc": "auto now = std::chrono::system_clock::now();"}),
    ("banned words", {"common/kv/a.cc": "long now = time(nullptr);"}),
    ("banned words", {"common/kv/a.cc": "auto now = std::chrono::steady_clock::now();"}),
    ("banned words", {"common/kv/a.cc": "#ifdef __linux__\n#endif"}),
    ("banned words", {"common/kv/a.cc": "  # if defined(__AVX2__)\n#endif"}),
    ("banned words", {"common/kv/a.cc": 'throw std::runtime_error("no");'}),
    ("banned words", {"tests/a_test.cc": "/* a comment */ throw 1;"}),
    ("banned words", {"common/kv/a.cc": "char quote = '\"'; throw 1; char other = '\"';"}),
    ("banned words", {"common/kv/a.cc": "int n = 1'000'000; throw 1; int m = 2'000;"}),
    ("marks", {"docs/a.md": "TO" + "DO: write"}),
    ("marks", {"common/kv/a.cc": "// FIX" + "ME"}),
    ("marks", {"tests/a.py": "open('/wo" + "rk/main/x')"}),
    ("sizes", {"common/kv/a.cc": "\n" * (rules.HARD_LINES + 1)}),
    ("headers", {"common/kv/a.h": "// Contract.\nint x;\n"}),
    ("headers", {"common/kv/a.h": "#pragma once\nint x;\n"}),
    ("names", {"common/kv/block_utils.cc": ""}),
    ("names", {"tools/launcher/helpers.py": ""}),
    ("cmake lists every source", CMAKE_OK | {"common/base/forgotten.cc": ""}),
    ("cmake lists every source", CMAKE_OK | {"common/base/deep/status.cc": ""}),
    ("cmake lists every source", CMAKE_OK | {"common/base/atus.cc": ""}),
    ("cmake lists every source", {"common/base/CMakeLists.txt": "# status.cc", "common/base/status.cc": ""}),
]

GOOD = [
    ("floors", {"common/model/a.h": including("common/base/status.h", "common/model/dtype.h", "common/proto/longhaul.pb.h")}),
    ("floors", {"router/main.cc": including("router/core/a.h", "decode_worker/worker.h", "kv_transfer/ucx_transport.h")}),
    ("floors", {"deploy/standalone/main.cc": including("prefill_worker/a.h", "decode_worker/a.h", "kernels/cpu/a.h")}),
    ("floors", {"kernels/cpu/a.cc": including("kernels/cpu/b.h", "common/engine/executor.h")}),
    ("floors", {"kernels/cpu/a.cc": "#include <vector>\n" + including("absl/types/span.h")}),
    ("floors", {"tests/sim/a.cc": including("tools/sim/world.h", "router/policy/policy.h")}),
    ("router rooms", {"router/core/a.cc": including("router/text/a.h", "router/api/b.h")}),
    ("router rooms", {"router/api/a.cc": including("router/api/b.h", "common/base/status.h")}),
    ("two tenants", {"common/kv/a.h": "", "router/c.cc": including("common/kv/a.h"), "kernels/c.cc": including("common/kv/a.h")}),
    ("two tenants", {
        "common/base/a.h": "", "common/kv/b.h": "", "common/kv/b.cc": including("common/base/a.h"),
        "router/c.cc": including("common/kv/b.h"), "tools/c.cc": including("common/kv/b.h"),
    }),
    ("two tenants", {
        "common/model/files.h": "", "common/model/pipe.h": "",
        "common/model/files_tokens.cc": including("common/base/status.h", "common/model/files.h", "common/model/pipe.h"),
        "router/c.cc": including("common/model/files.h"), "tools/c.cc": including("common/model/files.h"),
    }),
    ("banned words", {"router/main.cc": 'std::getenv("A");'}),
    ("banned words", {"common/runtime/a.cc": "std::thread t; std::mutex m; std::chrono::steady_clock::now();"}),
    ("banned words", {"common/kv/a.cc": '// never throw\n/* std::mutex\n throw */ Log("throw #if");\nint n = 10\'000;'}),
    ("banned words", {"common/kv/a.cc": 'auto s = R"(throw "x")";\nint64_t run_time(int); a.time(); step_time(3);'}),
    ("marks", {"README.md": "a framework/of rooms"}),
    ("sizes", {"common/kv/a.cc": "\n" * rules.HARD_LINES, "tests/data/golden.json": "\n" * 9999}),
    ("headers", {"common/kv/a.h": GOOD_HEADER, "common/kv/a.cc": ""}),
    ("names", {"common/kv/block_manager.cc": "", "tests/conftest.py": ""}),
    ("cmake lists every source", CMAKE_OK | {"common/base/status.cc": "", "common/base/deep/inner.cc": ""}),
]


@pytest.mark.parametrize("name, tree", BAD)
def test_catches(name, tree):
    assert rules.CHECKS[name](tree)


@pytest.mark.parametrize("name, tree", GOOD)
def test_lets_pass(name, tree):
    assert rules.CHECKS[name](tree) == []


def test_every_rule_is_tried_both_ways():
    assert {name for name, _ in BAD} == set(rules.CHECKS) == {name for name, _ in GOOD}


def test_a_fault_names_its_line():
    (fault,) = rules.check_bans({"common/kv/a.cc": '/* one\ntwo */\nauto s = R"(\n)";\nthrow 1;\n'})
    assert fault.startswith("common/kv/a.cc:5: throw")
