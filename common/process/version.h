// The version of this build.
#pragma once

namespace longhaul {

inline constexpr char kVersion[] = LONGHAUL_VERSION;  // PROJECT_VERSION of CMakeLists.txt

}  // namespace longhaul
