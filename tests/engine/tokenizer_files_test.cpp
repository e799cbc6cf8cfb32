// Tokenizer files of the data folder against the reference libraries' ids. Skipped without it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "engine/vocab_tokenizer.h"
#include "models/json.h"
#include "models/tokenizer_files.h"

namespace crumb {
namespace {

using nlohmann::json;

std::filesystem::path data_folder() {
  if (const char* folder = std::getenv("CRUMB_DATA"))
    return std::filesystem::path(folder) / "tokenizers";
  const char* source = std::getenv("CRUMB_SOURCE_DIR");
  return std::filesystem::path(source ? source : ".") / ".." / "shared" / "data" / "tokenizers";
}

std::vector<json> read_lines(const std::filesystem::path& path) {
  std::vector<json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

std::string from_hex(const std::string& digits) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
    bytes += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  return bytes;
}

struct Golden {
  const char* name;
  const char* file;
};
void PrintTo(const Golden& golden, std::ostream* out) { *out << golden.name; }

class TokenizerFiles : public testing::TestWithParam<Golden> {};

TEST_P(TokenizerFiles, GiveTheReferenceIds) {
  const auto folder = data_folder();
  const auto golden = read_lines(folder / (std::string("golden_") + GetParam().name + ".jsonl"));
  if (golden.empty()) GTEST_SKIP() << "no data in " << folder;
  const auto file = models::open_tokenizer_file((folder / GetParam().file).string());
  ASSERT_TRUE(file.has_value());
  const auto tokenizer = tokenizer_of(file->vocab);
  std::map<std::string, std::string> texts;
  for (const json& line : read_lines(folder / "strings.jsonl")) texts[line["id"]] = line["text"];
  for (const json& line : golden) {
    const std::string& text = texts.at(line["id"]);
    const auto ids = tokenizer->encode(text, !file->plain_text_only);
    EXPECT_EQ(ids, line["ids"].get<std::vector<int32_t>>()) << line["id"];
    if (line.contains("plain")) {
      EXPECT_EQ(tokenizer->encode(text, false), line["plain"].get<std::vector<int32_t>>());
    }
  }
}

TEST_P(TokenizerFiles, GiveTheReferenceIdsOfMalformedBytes) {
  const auto folder = data_folder();
  const auto lines = read_lines(folder / (std::string("malformed_") + GetParam().name + ".jsonl"));
  if (lines.empty()) GTEST_SKIP() << "no such data in " << folder;
  const auto file = models::open_tokenizer_file((folder / GetParam().file).string());
  ASSERT_TRUE(file.has_value());
  const auto tokenizer = tokenizer_of(file->vocab);
  for (const json& line : lines)
    EXPECT_EQ(tokenizer->encode(from_hex(line["hex"]), false),
              line["ids"].get<std::vector<int32_t>>())
        << line["hex"];
}

INSTANTIATE_TEST_SUITE_P(Data, TokenizerFiles,
                         testing::Values(Golden{"mistral_v1", "mistral_v1.model"},
                                         Golden{"mistral_v3", "mistral_v3.model"},
                                         Golden{"spm_unigram_en", "spm_unigram_en.model"},
                                         Golden{"spm_unigram_ja", "spm_unigram_ja.model"},
                                         Golden{"own_unigram_bytes", "own_unigram_bytes.model"},
                                         Golden{"own_bpe_noprefix", "own_bpe_noprefix.model"},
                                         Golden{"own_bpe_suffix", "own_bpe_suffix.model"},
                                         Golden{"own_word", "own_word.model"},
                                         Golden{"own_char", "own_char.model"},
                                         Golden{"smollm2", "smollm2.tokenizer.json"}));

}  // namespace
}  // namespace crumb
