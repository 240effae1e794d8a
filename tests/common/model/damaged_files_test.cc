// Damaged files: every truncation and thousands of random changes of small valid files give a model
// or an error, and nothing is read outside the bytes there are (which the sanitizers watch).
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>

#include "common/model/dequantize.h"
#include "common/model/gguf_model.h"
#include "common/model/hugging_face.h"
#include "common/model/model_digest.h"
#include "common/model/safetensors.h"
#include "tests/common/model/gguf_builder.h"
#include "tests/common/model/hugging_face_files.h"

namespace longhaul {
namespace {

using Bytes = std::vector<std::byte>;

// Reads everything that a model's views promise to be there.
void Touch(const ModelFile& model) {
  std::vector<float> row;
  const auto touch = [&row](const WeightView& view) {
    row.resize(view.cols);
    for (int64_t i = 0; view.present() && i < view.rows; ++i) DequantizeRow(view, i, row.data());
  };
  touch(model.weights.embedding);
  touch(model.weights.final_norm);
  touch(model.weights.head);
  for (const LayerWeights& layer : model.weights.layers) {
    for (const WeightView* view :
         {&layer.attention_norm, &layer.q, &layer.k, &layer.v, &layer.q_bias, &layer.k_bias,
          &layer.v_bias, &layer.q_norm, &layer.k_norm, &layer.attention_out, &layer.ffn_norm,
          &layer.gate, &layer.up, &layer.down}) {
      touch(*view);
    }
  }
  DigestOf(model);
}

// Some of the damage that a hostile writer would do: bits, whole bytes, runs, extreme numbers.
void Damage(std::mt19937_64* random, Bytes* bytes) {
  const auto at = [&](size_t width) { return (*random)() % (bytes->size() - width); };
  for (uint64_t i = 0, changes = 1 + (*random)() % 4; i < changes; ++i) {
    switch ((*random)() % 4) {
      case 0:
        (*bytes)[at(1)] ^= static_cast<std::byte>(1u << ((*random)() % 8));
        break;
      case 1:
        (*bytes)[at(1)] = static_cast<std::byte>((*random)());
        break;
      case 2: {
        const uint64_t numbers[] = {0, 1, ~uint64_t{0}, uint64_t{1} << 63, 0x7fffffff, 0xffffffff};
        std::memcpy(bytes->data() + at(8), &numbers[(*random)() % 6], 8);
        break;
      }
      default:
        std::memmove(bytes->data() + at(16), bytes->data() + at(16), 16);
    }
  }
}

// A copy on the heap of exactly its size, so that a read beyond it is seen.
std::unique_ptr<std::byte[]> Exactly(absl::Span<const std::byte> bytes) {
  auto copy = std::make_unique<std::byte[]>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), copy.get());
  return copy;
}

// True when it was read.
bool ReadGguf(absl::Span<const std::byte> bytes) {
  const auto copy = Exactly(bytes);
  const auto model = ModelFromGguf({copy.get(), bytes.size()}, nullptr, "x");
  if (model.ok()) Touch(*model);
  return model.ok();
}

TEST(DamagedFilesTest, EveryTruncationOfGgufIsRefused) {
  const Bytes whole = SmallGguf().Whole().Build();
  ASSERT_TRUE(ReadGguf(whole));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    ASSERT_FALSE(ReadGguf({whole.data(), bytes})) << bytes;
  }
}

TEST(DamagedFilesTest, RandomChangesOfGguf) {
  const Bytes whole = SmallGguf().Whole().Build();
  std::mt19937_64 random(7);
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    Bytes damaged = whole;
    Damage(&random, &damaged);
    read += ReadGguf(damaged) ? 1 : 0;
  }
  // Damage of weights or token texts goes unseen; of the structure it must not.
  EXPECT_GT(read, 500);
  EXPECT_LT(read, 15000);
}

bool ReadSafetensors(absl::Span<const std::byte> bytes) {
  const auto copy = Exactly(bytes);
  const auto tensors = ParseSafetensors({copy.get(), bytes.size()}, "x");
  if (!tensors.ok()) return false;
  for (const SafetensorsTensor& tensor : *tensors) {
    std::vector<float> row(tensor.bytes / BlockBytes(tensor.dtype));
    DequantizeRow(tensor.dtype, tensor.data, static_cast<int64_t>(row.size()), row.data());
  }
  return true;
}

TEST(DamagedFilesTest, EveryTruncationOfSafetensorsIsRefused) {
  const Bytes whole = SmallSafetensors();
  ASSERT_TRUE(ReadSafetensors(whole));
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    ASSERT_FALSE(ReadSafetensors({whole.data(), bytes})) << bytes;
  }
}

TEST(DamagedFilesTest, RandomChangesOfSafetensors) {
  const Bytes whole = SmallSafetensors();
  std::mt19937_64 random(8);
  for (int i = 0; i < 3000; ++i) {
    Bytes damaged = whole;
    Damage(&random, &damaged);
    ReadSafetensors(damaged);
  }
}

TEST(DamagedFilesTest, RandomChangesOfAFolder) {
  const HuggingFaceFolder folder;
  ASSERT_TRUE(ModelFromHuggingFace(folder.path()).ok())
      << ModelFromHuggingFace(folder.path()).status();
  std::mt19937_64 random(9);
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                           "tokenizer_config.json", "model.safetensors"}) {
    const std::string whole = folder.Read(name);
    int refused = 0;
    for (int i = 0; i < 400; ++i) {
      const auto* begin = reinterpret_cast<const std::byte*>(whole.data());
      Bytes damaged(begin, begin + whole.size());
      Damage(&random, &damaged);
      if (i % 4 == 0) damaged.resize(1 + random() % damaged.size());
      folder.Write(name, {reinterpret_cast<const char*>(damaged.data()), damaged.size()});
      const auto model = ModelFromHuggingFace(folder.path());
      if (model.ok()) Touch(*model);
      refused += model.ok() ? 0 : 1;
    }
    EXPECT_GT(refused, 20) << name;
    folder.Write(name, whole);
  }
}

}  // namespace
}  // namespace longhaul
