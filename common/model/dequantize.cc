#include "common/model/dequantize.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/base/check.h"
#include "common/model/half.h"

namespace longhaul {
namespace {

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

float LoadHalf(const std::byte* data) { return F32FromF16(Load<uint16_t>(data)); }
int Byte(const std::byte* data) { return static_cast<int>(*data); }

// The 32-element formats: element i is the low nibble of byte i, element i + 16 the high one.
// `center` is what the stored values are shifted by; kHigh adds the fifth bits from a 32-bit mask.
template <bool kHigh>
void Nibbles(const std::byte* quants, uint32_t high, float scale, int center, float minimum,
             float* out) {
  for (int i = 0; i < 16; ++i) {
    int low_value = Byte(quants + i) & 15;
    int high_value = Byte(quants + i) >> 4;
    if (kHigh) {
      low_value |= static_cast<int>((high >> i) & 1u) << 4;
      high_value |= static_cast<int>((high >> (i + 16)) & 1u) << 4;
    }
    out[i] = static_cast<float>(low_value - center) * scale + minimum;
    out[i + 16] = static_cast<float>(high_value - center) * scale + minimum;
  }
}

// Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit minima into 12 bytes: the first four of
// each lie whole in bytes 0-3 and 4-7, whose upper two bits complete the last four.
struct ScaleMin {
  int scale;
  int minimum;
};
ScaleMin UnpackScaleMin(const std::byte* packed, int index) {
  if (index < 4) return {Byte(packed + index) & 63, Byte(packed + index + 4) & 63};
  const int last = Byte(packed + index + 4);
  return {(last & 15) | ((Byte(packed + index - 4) >> 6) << 4),
          (last >> 4) | ((Byte(packed + index) >> 6) << 4)};
}

// 256 elements as eight groups of 32; two neighbouring groups share 32 bytes of nibbles. `high`
// [32] holds bit g of the fifth bits for group g, or is null.
void KNibbles(const std::byte* block, const std::byte* high, const std::byte* quants, float* out) {
  const float scale = LoadHalf(block);
  const float minimum = LoadHalf(block + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin packed = UnpackScaleMin(block + 4, group);
    const float group_scale = scale * static_cast<float>(packed.scale);
    const float group_minimum = minimum * static_cast<float>(packed.minimum);
    for (int i = 0; i < 32; ++i) {
      const int byte = Byte(quants + group / 2 * 32 + i);
      int value = group % 2 == 0 ? byte & 15 : byte >> 4;
      if (high != nullptr) value |= ((Byte(high + i) >> group) & 1) << 4;
      out[group * 32 + i] = group_scale * static_cast<float>(value) - group_minimum;
    }
  }
}

// 256 elements of 6 bits: low nibbles [128], upper two bits [64], 16 signed scales, scale.
void Q6K(const std::byte* block, float* out) {
  const float scale = LoadHalf(block + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte* low = block + half * 64;
    const std::byte* high = block + 128 + half * 32;
    const std::byte* scales = block + 192 + half * 8;
    for (int quarter = 0; quarter < 4; ++quarter) {
      for (int i = 0; i < 32; ++i) {
        const int byte = Byte(low + (quarter % 2) * 32 + i);
        const int nibble = quarter < 2 ? byte & 15 : byte >> 4;
        const int value = (nibble | (((Byte(high + i) >> (2 * quarter)) & 3) << 4)) - 32;
        const auto group = static_cast<float>(Load<int8_t>(scales + quarter * 2 + i / 16));
        out[half * 128 + quarter * 32 + i] = scale * group * static_cast<float>(value);
      }
    }
  }
}

void DequantizeBlock(DType dtype, const std::byte* block, float* out) {
  switch (dtype) {
    case DType::kF32:
      *out = Load<float>(block);
      return;
    case DType::kF16:
      *out = LoadHalf(block);
      return;
    case DType::kBF16:
      *out = F32FromBF16(Load<uint16_t>(block));
      return;
    case DType::kI32:
      *out = static_cast<float>(Load<int32_t>(block));
      return;
    case DType::kQ8_0: {
      const float scale = LoadHalf(block);
      for (int i = 0; i < 32; ++i) {
        out[i] = static_cast<float>(Load<int8_t>(block + 2 + i)) * scale;
      }
      return;
    }
    case DType::kQ4_0:
      return Nibbles<false>(block + 2, 0, LoadHalf(block), 8, 0.0f, out);
    case DType::kQ4_1:
      return Nibbles<false>(block + 4, 0, LoadHalf(block), 0, LoadHalf(block + 2), out);
    case DType::kQ5_0:
      return Nibbles<true>(block + 6, Load<uint32_t>(block + 2), LoadHalf(block), 16, 0.0f, out);
    case DType::kQ5_1:
      return Nibbles<true>(block + 8, Load<uint32_t>(block + 4), LoadHalf(block), 0,
                           LoadHalf(block + 2), out);
    case DType::kQ4_K:
      return KNibbles(block, nullptr, block + 16, out);
    case DType::kQ5_K:
      return KNibbles(block, block + 16, block + 48, out);
    case DType::kQ6_K:
      return Q6K(block, out);
  }
}

}  // namespace

void DequantizeRow(DType dtype, const std::byte* data, int64_t elements, float* out) {
  const int64_t block_elements = BlockElements(dtype);
  const int64_t block_bytes = BlockBytes(dtype);
  LH_CHECK(elements >= 0 && elements % block_elements == 0,
           absl::StrCat(elements, " elements of ", DTypeName(dtype)));
  for (int64_t done = 0; done < elements; done += block_elements) {
    DequantizeBlock(dtype, data, out + done);
    data += block_bytes;
  }
}

void DequantizeRow(const WeightView& weight, int64_t row, float* out) {
  LH_CHECK(weight.present() && row >= 0 && row < weight.rows,
           absl::StrCat("row ", row, " of ", weight.rows));
  DequantizeRow(weight.dtype, weight.Row(row), weight.cols, out);
}

}  // namespace longhaul
