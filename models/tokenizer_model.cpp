// tokenizer.model: the protocol buffer by hand, the fields that matter.
#include <algorithm>
#include <bit>
#include <filesystem>

#include "models/byte_reader.h"
#include "models/errors.h"
#include "models/mapped_file.h"
#include "models/text.h"
#include "models/tokenizer_files.h"

namespace crumb::models {
namespace {

constexpr std::size_t kMaxModelBytes = 64 << 20;
constexpr std::size_t kMaxPieceBytes = 4096;
constexpr const char* kKinds[] = {"t5", "llama", "spm-word", "spm-char"};  // ModelType 1..4

uint64_t varint(ByteReader& in, std::string_view what) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = in.read<uint8_t>(what);
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  in.fail(what, "a number of at most 10 bytes", "a longer one");
}

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;              // of wire types 0 (varint), 1 and 5 (fixed)
  std::span<const uint8_t> bytes;  // of wire type 2
  std::string_view text() const {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
};

// Calls take(field) for every field of one message.
template <typename Take>
void for_each_field(std::span<const uint8_t> message, const std::string& file, Take take) {
  ByteReader in(message, file);
  while (in.remaining() > 0) {
    const uint64_t key = varint(in, "field key");
    Field field;
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.value = varint(in, "field");
        break;
      case 1:
        field.value = in.read<uint64_t>("field");
        break;
      case 2:
        field.bytes = in.take(varint(in, "length"), "field");
        break;
      case 5:
        field.value = in.read<uint32_t>("field");
        break;
      default:
        in.fail("field key", "wire type 0, 1, 2 or 5", std::to_string(key & 7));
    }
    take(field);
  }
}

void add_piece(const Field& entry, const std::string& file, Vocab& vocab) {
  std::string text;
  float score = 0;
  uint64_t type = 1;
  for_each_field(entry.bytes, file, [&](const Field& field) {
    if (field.number == 1) text = field.text();
    if (field.number == 2) score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == 3) type = field.value;
  });
  const std::string where = " of piece " + std::to_string(vocab.tokens.size());
  const auto fail = [&](const char* what, const std::string& expected, const std::string& found) {
    throw FormatError("invalid " + (what + where) + " (" + file + ": expected " + expected +
                      ", found " + found + ")");
  };
  if (vocab.tokens.size() == static_cast<std::size_t>(kMaxVocab))
    fail("number", "at most " + std::to_string(kMaxVocab), "more");
  if (text.empty() || text.size() > kMaxPieceBytes || text.find('\0') != std::string::npos)
    fail("text", "1.." + std::to_string(kMaxPieceBytes) + " bytes without NUL",
         std::to_string(text.size()) + " bytes");
  if (type < 1 || type > 6) fail("type", "1..6", std::to_string(type));
  vocab.tokens.push_back(std::move(text));
  vocab.scores.push_back(score);
  vocab.types.push_back(static_cast<TokenType>(type));
}

void read_trainer(const Field& spec, const std::string& file, Vocab& vocab) {
  // bos and eos have defaults; the unknown token is found by its type.
  vocab.bos = 1;
  vocab.eos = 2;
  for_each_field(spec.bytes, file, [&](const Field& field) {
    const auto id = static_cast<int32_t>(static_cast<uint32_t>(field.value));
    if (field.number == 3) {
      if (field.value < 1 || field.value > 4)
        throw FormatError("invalid kind of model (" + file + ": expected 1..4, found " +
                          std::to_string(field.value) + ")");
      vocab.model = kKinds[field.value - 1];
    }
    if (field.number == 24) vocab.space_suffix = field.value != 0;
    if (field.number == 41) vocab.bos = id;
    if (field.number == 42) vocab.eos = id;
    if (field.number == 43) vocab.pad = id;
  });
}

void read_normalizer(const Field& spec, const std::string& file, Vocab& vocab) {
  for_each_field(spec.bytes, file, [&](const Field& field) {
    if (field.number == 2) vocab.charsmap = field.text();
    if (field.number == 3) vocab.add_space_prefix = field.value != 0;
    if (field.number == 4) vocab.remove_extra_spaces = field.value != 0;
    if (field.number == 5) vocab.escape_spaces = field.value != 0;
  });
}

std::string varint_of(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  return out + static_cast<char>(value);
}
std::string text_field(uint64_t number, std::string_view text) {
  return varint_of(number << 3 | 2) + varint_of(text.size()) + std::string(text);
}
std::string number_field(uint64_t number, uint64_t value) {
  return varint_of(number << 3) + varint_of(value);
}
std::string real_field(uint64_t number, float value) {
  std::string out = varint_of(number << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift & 0xFF);
  return out;
}

}  // namespace

std::string write_sentencepiece_model(const Vocab& vocab) {
  std::string out;
  bool bytes = false;
  for (std::size_t id = 0; id < vocab.tokens.size(); ++id) {
    const bool unknown = static_cast<int32_t>(id) == vocab.unk;
    const auto type = unknown ? uint64_t{2} : static_cast<uint64_t>(vocab.types[id]);
    bytes = bytes || vocab.types[id] == TokenType::kByte;
    out += text_field(1, text_field(1, vocab.tokens[id]) + real_field(2, vocab.scores[id]) +
                             number_field(3, type));
  }
  const auto kind = std::find(std::begin(kKinds), std::end(kKinds), vocab.model);
  const auto id_field = [](uint64_t number, int32_t id) {
    return number_field(number, static_cast<uint64_t>(static_cast<int64_t>(id)));
  };
  out += text_field(2, number_field(3, static_cast<uint64_t>(kind - std::begin(kKinds)) + 1) +
                           number_field(4, vocab.tokens.size()) +
                           number_field(24, vocab.space_suffix) + number_field(35, bytes) +
                           id_field(40, vocab.unk) + id_field(41, vocab.bos) +
                           id_field(42, vocab.eos) + id_field(43, vocab.pad));
  std::string normalizer = text_field(1, vocab.charsmap.empty() ? "identity" : "file");
  if (!vocab.charsmap.empty()) normalizer += text_field(2, vocab.charsmap);
  normalizer += number_field(3, vocab.add_space_prefix) +
                number_field(4, vocab.remove_extra_spaces) + number_field(5, vocab.escape_spaces);
  return out + text_field(3, normalizer);
}

Vocab read_sentencepiece_model(std::span<const uint8_t> bytes, const std::string& file) {
  if (bytes.size() > kMaxModelBytes)
    throw FormatError("tokenizer too large (" + file + ": expected at most 64 MiB, found " +
                      std::to_string(bytes.size()) + " bytes)");
  Vocab vocab;
  vocab.model = "t5";  // the format's defaults
  vocab.pre = "default";
  vocab.add_space_prefix = true;
  vocab.remove_extra_spaces = true;
  for_each_field(bytes, file, [&](const Field& field) {
    if (field.number == 1) add_piece(field, file, vocab);
    if (field.number == 2) read_trainer(field, file, vocab);
    if (field.number == 3) read_normalizer(field, file, vocab);
  });
  const auto V = static_cast<int32_t>(vocab.tokens.size());
  for (int32_t id = 0; id < V; ++id)
    if (vocab.types[static_cast<std::size_t>(id)] == TokenType::kUnknown) vocab.unk = id;
  // Models trained without a token keep a default id of it that is another's, or none's.
  for (int32_t* id : {&vocab.bos, &vocab.eos, &vocab.pad})
    if (*id < 0 || *id >= V || vocab.types[static_cast<std::size_t>(*id)] != TokenType::kControl)
      *id = -1;
  add_known_stops(vocab);
  validate(vocab, file);
  return vocab;
}

std::optional<TokenizerFile> open_tokenizer_file(const std::string& path) {
  if (std::filesystem::is_directory(path)) return std::nullopt;
  const MappedFile file(path);
  const auto bytes = file.bytes();
  if (bytes.size() < 2) return std::nullopt;
  if (bytes[0] == '{')
    return TokenizerFile{
        read_tokenizer_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path)};
  // A ModelProto starts with its first piece: field 1, a message, whose own field 1 is a text.
  constexpr uint8_t kFirstField = 1 << 3 | 2;
  if (bytes[0] == kFirstField && bytes.size() > 3 &&
      (bytes[2] == kFirstField || bytes[3] == kFirstField))
    return TokenizerFile{read_sentencepiece_model(bytes, path), true};
  return std::nullopt;
}

}  // namespace crumb::models
