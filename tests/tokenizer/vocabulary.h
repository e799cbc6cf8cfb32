// Vocabularies for the tokenizer tests: tiny ones written here, and the golden ones of the data
// folder where it is present.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"

namespace crumb::tokenizer {

using Pairs = std::vector<std::pair<std::string, std::string>>;

inline void add_token(TokenizerData& data, std::string text, TokenType type = TokenType::kNormal) {
  data.tokens.push_back(std::move(text));
  data.types.push_back(type);
}

inline int32_t id_of(const TokenizerData& data, const std::string& text) {
  const auto found = std::find(data.tokens.begin(), data.tokens.end(), text);
  return found == data.tokens.end() ? -1 : static_cast<int32_t>(found - data.tokens.begin());
}

// All bytes but those in `lacking`, token id = byte value where none is lacking, then a token for
// each merge (of plain bytes, not in the byte alphabet).
inline TokenizerData byte_vocabulary(const Pairs& merges, const std::string& pre = "gpt-2",
                                     const std::string& lacking = "") {
  TokenizerData data;
  data.model = "gpt2";
  data.pre = pre;
  for (int byte = 0; byte < 256; ++byte) {
    const char character = static_cast<char>(byte);
    if (lacking.find(character) == std::string::npos) {
      add_token(data, to_byte_alphabet(std::string(1, character)));
    }
  }
  for (const auto& [left, right] : merges) {
    const std::string joined = to_byte_alphabet(left + right);
    if (id_of(data, joined) < 0) add_token(data, joined);
    data.merges.push_back({id_of(data, to_byte_alphabet(left)),
                           id_of(data, to_byte_alphabet(right)), id_of(data, joined)});
  }
  return data;
}

// $CRUMB_DATA, else ../shared/data beside the source folder.
inline std::filesystem::path golden_folder() {
  if (const char* folder = std::getenv("CRUMB_DATA")) {
    return std::filesystem::path(folder) / "tokenizers";
  }
  const char* source = std::getenv("CRUMB_SOURCE_DIR");
  return std::filesystem::path(source ? source : ".") / ".." / "shared" / "data" / "tokenizers";
}

// The lines of a JSONL file; none if it is not there.
inline std::vector<nlohmann::json> read_lines(const std::string& name) {
  std::vector<nlohmann::json> lines;
  std::ifstream file(golden_folder() / name);
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

inline std::optional<TokenizerData> read_smollm2() {
  std::ifstream file(golden_folder() / "smollm2.tokenizer.json");
  if (!file) return std::nullopt;
  const nlohmann::json json = nlohmann::json::parse(file);
  TokenizerData data;
  data.model = "gpt2";
  data.pre = "smollm";
  const nlohmann::json& vocab = json["model"]["vocab"];
  data.tokens.resize(vocab.size());
  data.types.assign(vocab.size(), TokenType::kNormal);
  std::unordered_map<std::string, int32_t> ids;
  for (const auto& [text, id] : vocab.items()) {
    data.tokens.at(id.get<std::size_t>()) = text;
    ids[text] = id;
  }
  for (const nlohmann::json& token : json["added_tokens"]) {
    data.types.at(token["id"].get<std::size_t>()) = TokenType::kControl;
  }
  for (const nlohmann::json& merge : json["model"]["merges"]) {
    const std::string left = merge[0], right = merge[1];
    data.merges.push_back({ids.at(left), ids.at(right), ids.at(left + right)});
  }
  return data;
}

inline std::string from_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  unsigned held = 0;
  int bits = 0;
  for (const char digit : text) {
    if (digit == '=') break;
    held = held << 6 | static_cast<unsigned>(digits.find(digit));
    bits += 6;
    if (bits >= 8) bytes += static_cast<char>(held >> (bits -= 8) & 0xFF);
  }
  return bytes;
}

// A rank file has no merges: a token's are found by merging its bytes with the ranks below its own
// until two parts are left.
inline std::pair<std::string, std::string> last_merge(
    const std::string& token, const std::unordered_map<std::string, int32_t>& ids) {
  const int32_t own = ids.at(token);
  std::vector<std::string> parts;
  for (const char byte : token) parts.emplace_back(1, byte);
  while (parts.size() > 2) {
    std::size_t best = 0;
    int32_t best_rank = own;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ids.find(parts[i] + parts[i + 1]);
      if (found != ids.end() && found->second < best_rank) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best_rank == own) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  return {parts.at(0), parts.at(1)};
}

inline std::optional<TokenizerData> read_qwen2() {
  std::ifstream file(golden_folder() / "qwen.tiktoken");
  std::ifstream special(golden_folder() / "qwen2_special_tokens.json");
  if (!file || !special) return std::nullopt;
  TokenizerData data;
  data.model = "gpt2";
  data.pre = "qwen2";
  std::unordered_map<std::string, int32_t> ids;
  std::vector<std::string> raw;
  int32_t rank = 0;
  for (std::string text; file >> text >> rank;) {
    raw.push_back(from_base64(text));
    ids[raw.back()] = rank;
    add_token(data, to_byte_alphabet(raw.back()));
  }
  for (const std::string& token : raw) {
    if (token.size() < 2) continue;
    const auto [left, right] = last_merge(token, ids);
    data.merges.push_back({ids.at(left), ids.at(right), ids.at(token)});
  }
  const nlohmann::json added = nlohmann::json::parse(special);
  data.tokens.resize(raw.size() + added.size());
  data.types.resize(data.tokens.size(), TokenType::kControl);
  for (const auto& [text, id] : added.items()) data.tokens.at(id.get<std::size_t>()) = text;
  return data;
}

inline std::string random_bytes(std::mt19937& random, const std::string& alphabet,
                                std::size_t most) {
  std::string out(random() % (most + 1), ' ');
  for (char& byte : out) byte = alphabet[random() % alphabet.size()];
  return out;
}

}  // namespace crumb::tokenizer
